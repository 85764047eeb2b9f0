"""One example of a store, token by token."""

from pathlib import Path

import pytest

from cache.errors import StoreError
from cluster.report.token_view import token_view
from tests.cache.store.mixed_stores import open_mixed


def test_an_unknown_example_is_named_before_a_tokenizer_is_looked_for(tmp_path: Path) -> None:
    store, _ = open_mixed(tmp_path / "store", "topk")
    with pytest.raises(StoreError, match="0 examples have the id 'nobody'"):
        token_view(store, "nobody")
    with pytest.raises(StoreError, match="0 examples have the id 'nobody'"):
        token_view(store, "nobody", tokenizer_name="no tokenizer")
