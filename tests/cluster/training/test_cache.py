"""A run with copies of its parts on a local disk is the same run."""

import pickle
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cache.storage.local_copies import CopyFolder
from cache.store.logit_store import LogitStore
from cluster.training.driver import run_training
from student.training.run_files import MODEL
from tests.student.training.ranks import TOPK, add_unit, make_store, settings_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = make_store(tmp_path_factory.mktemp("store"), tiny_model, TOPK, 19)
    add_unit(folder, 20)
    return folder


def parts_in(folder: Path) -> int:
    """Copies of parts in a folder."""
    return sum(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))


def test_a_store_with_copies_has_the_same_rows(tmp_path: Path, store: Path) -> None:
    """Also in another process, and at a later snapshot."""
    with LogitStore.open(store) as plain, LogitStore.open(store, 1, copies=CopyFolder(tmp_path, 1 << 30)) as first:
        for opened in (first, pickle.loads(pickle.dumps(first)), first.refresh()):
            for example, record in enumerate(opened[: len(opened)]):
                assert record.tokenized.tokens.tolist() == plain[example].tokenized.tokens.tolist()
                assert record.targets.ids.tolist() == plain[example].targets.ids.tolist()
    assert parts_in(tmp_path) == 2


@pytest.mark.slow
def test_a_run_with_copies_is_the_same_run(tmp_path: Path, store: Path) -> None:
    run = {"steps": 12, "ranks": 1, "zero_stage": 0}
    for name, data in (("plain", {}), ("copies", {"cache": {"folder": str(tmp_path / "disk"), "gib": 1.0}})):
        run_training(settings_of(tmp_path / name, store, run=run, data=data), None)
    weights, expected = (load_file(tmp_path / name / MODEL / "model.safetensors") for name in ("copies", "plain"))
    assert all((weights[name] == expected[name]).all() for name in expected)
    assert parts_in(tmp_path / "disk") == 2
    again = settings_of(tmp_path / "plain", store, run=run, data={"cache": {"folder": str(tmp_path / "other")}})
    run_training(again, None)  # complete; a cache is no other job
