"""Students of a store that grows: which step reads which snapshot, also after a loss of the rank, and again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from cache.errors import InputError
from cache.store.logit_store import LogitStore
from cluster.training.driver import run_training
from student.training.run_files import steps_done
from student.training.settings import TrainSettings
from tests.cluster.training.test_single_rank import kill_rank
from tests.student.training.ranks import TOPK, add_unit, make_store, metrics, settings_of

pytestmark = pytest.mark.slow
RUN = {"steps": 200, "ranks": 1, "zero_stage": 0, "checkpoint_every": 10}


@pytest.fixture
def store(tmp_path: Path, tiny_model: Path) -> Path:
    return make_store(tmp_path / "store", tiny_model, TOPK, 19)


def following(output: Path, store: Path, **run: Any) -> TrainSettings:
    return settings_of(output, store, data={"follow": 20}, run=RUN | run)


def same_weights(first: Path, second: Path) -> bool:
    one, other = (load_file(output / "model" / "model.safetensors") for output in (first, second))
    return all((one[name] == other[name]).all() for name in one)


def test_a_run_reads_what_was_added_and_can_be_repeated(tmp_path: Path, store: Path) -> None:
    """The rank is killed after the store has grown. A run with the same record has the same weights."""
    job, grown = following(tmp_path / "run", store), []
    kill = kill_rank(lambda: bool(grown) and steps_done(job.output) > grown[0] + 30)

    def watch() -> None:
        if not grown and steps_done(job.output) >= 40:
            grown.append(steps_done(job.output))
            add_unit(store, 30)
        kill()

    result = run_training(job, None, watch)
    first, second = result["followed"]
    assert (first["step"], first["snapshot"], first["examples"]) == (0, 1, 19)
    assert second["snapshot"] == 2 and second["examples"] == 49 and second["step"] % 20 == 0 < second["step"]
    assert LogitStore.open(str(store)).snapshot == 2, "the run has taken the snapshot that it reads"
    lines = metrics(job.output)
    assert [line["step"] for line in lines] == list(range(1, 201))
    assert {line["snapshot"] for line in lines if line["step"] <= second["step"]} == {1}
    assert {line["snapshot"] for line in lines if line["step"] > second["step"]} == {2}

    repeated = following(tmp_path / "repeated", store).model_copy(
        update={"data": job.data.model_copy(update={"snapshot": 1})}
    )
    repeated.output.mkdir()
    shutil.copy(job.output / "followed.json", repeated.output / "followed.json")
    run_training(repeated, None)
    assert same_weights(job.output, repeated.output)
    other = settings_of(tmp_path / "other", store, data={"snapshot": 1}, run=RUN)
    run_training(other, None)
    assert not same_weights(job.output, other.output)


def test_two_ranks_follow_together(tmp_path: Path, store: Path) -> None:
    job, grown = following(tmp_path / "run", store, ranks=2, steps=160), []

    def watch() -> None:
        if not grown and steps_done(job.output) >= 20:
            grown.append(True)
            add_unit(store, 30)

    result = run_training(job, None, watch)
    assert [each["snapshot"] for each in result["followed"]] == [1, 2] and result["steps"] == 160
    assert json.loads((job.output / "job.json").read_text())["data"]["snapshot"] == 1


def test_the_record_of_another_run_is_refused(tmp_path: Path, store: Path, tiny_model: Path) -> None:
    """As of one that was killed before its first checkpoint. What its own record began with is gone on with."""
    other = make_store(tmp_path / "other", tiny_model, TOPK, 12, seed=5)
    job = following(tmp_path / "run", store, steps=20)
    job.output.mkdir()
    first = {"step": 0, "snapshot": 1, "examples": 19}
    record = {"store": str(store), "follow": 20, "decided": 0, "stretches": [first]}
    (job.output / "followed.json").write_text(json.dumps(record))
    add_unit(store, 5)
    for changed, message in {
        "store": (job.data.model_copy(update={"store": str(other)}), "data.store = "),
        "follow": (job.data.model_copy(update={"follow": 10}), "data.follow = 20, and the job has 10"),
        "snapshot": (job.data.model_copy(update={"snapshot": 2}), "data.snapshot = 1, and the job has 2"),
    }.values():
        with pytest.raises(InputError, match=f"{message}.*") as error:
            run_training(job.model_copy(update={"data": changed}), None)
        assert "remove the file, or give another output" in str(error.value)
    result = run_training(job, None)
    assert result["followed"] == [first] and result["stores"][0]["snapshot"] == 1 and result["examples"] == 19


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"run": {"steps": None, "epochs": 2.0}}, "data.follow needs run.steps"),
        ({"data": {"align": "cross_tokenizer"}, "tokenizer": {"path": "x"}}, "'follow' reads one 'store'"),
    ],
)
def test_what_cannot_follow_is_refused(tmp_path: Path, store: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings_of(tmp_path / "run", store, **{**sections, "data": {"follow": 5, **sections.get("data", {})}})
