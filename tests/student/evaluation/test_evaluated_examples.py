"""An evaluation says how many examples it is of, and refuses a model that cannot read them."""

import json
from pathlib import Path

import pytest

from cache.errors import InputError
from cache.progress import no_progress
from cache.store.logit_store import LogitStore
from student.evaluation.language_model import evaluate_language_model
from student.evaluation.settings import AnswerSettings
from tests.student.training.ranks import TOPK, make_pretrained, make_store


def test_an_evaluation_is_of_all_examples_or_of_none(tmp_path: Path, tiny_model: Path) -> None:
    """Would catch examples beyond the positions of the model, which are no measure of it."""
    store = LogitStore.open(make_store(tmp_path / "store", tiny_model, TOPK, 40))
    model = make_pretrained(tmp_path / "model", tiny_model)
    metrics = evaluate_language_model(str(model), store, None, AnswerSettings(), lambda stage: no_progress)
    assert (metrics["examples"], metrics["examples_left_out"]) == (40, 0)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 12}))
    message = r"of 40 stored examples are longer than the 12 positions .* evaluate it on a store of shorter examples"
    with pytest.raises(InputError, match=message):
        evaluate_language_model(str(model), store, None, AnswerSettings(), lambda stage: no_progress)
