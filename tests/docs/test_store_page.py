"""The snippets of docs/store.md run one after another, on a store of chats, and give what the page says."""

import re
from pathlib import Path
from typing import Any

import pytest
import zarr

from tests.cache.rows.rows import TARGETS
from tests.cache.store.reading.chat_stores import chat_records, chat_spec, write_store
from tests.docs.test_examples_in_pages import blocks


def test_the_snippets_about_a_store_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, records = chat_spec(TARGETS["topk"]), chat_records(TARGETS["topk"], 150)
    write_store(tmp_path / "runs" / "demo" / "store", spec, records[:100])
    write_store(tmp_path / "runs" / "more" / "store", spec, records[90:])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    snippets = blocks("docs/store.md", "python")
    assert len(snippets) >= 5
    for snippet in snippets:
        exec(snippet, names)
    store = names["store"]
    assert len(names["last"]) == min(8, store.tokens[-1]) and len(names["batch"]) == len(names["texts"]) == 3
    assert names["names"] == [store[i].tokenized.example.id for i in (5, 2, 40)]
    assert all(0 < len(names[name]) < len(store) for name in ("short", "explained", "sums", "right"))
    assert len(names["table"]) == len(names["sums"]) == len(names["tensors"]["starts"]) - 1
    assert list(names["frame"].columns) == ["id", "response", "metadata"]
    assert (tmp_path / "sums.parquet").stat().st_size
    assert (len(names["both"]), names["both"].doubles) == (150, 10)


@pytest.mark.parametrize("page", ["docs/store.md", "cache/README.md"])
def test_a_part_opens_as_the_pages_say(tmp_path: Path, page: str) -> None:
    write_store(tmp_path / "store", chat_spec(TARGETS["topk"]), chat_records(TARGETS["topk"], 30))
    (path,) = (tmp_path / "store" / "parts").glob("*/*.zarr.zip")
    (expression,) = re.findall(r"`(zarr\.open_group\(zarr\.storage\.ZipStore.*?)`", Path(page).read_text())
    assert eval(expression, {"zarr": zarr, "path": path}).attrs["kind"] == "logitbank.part"
