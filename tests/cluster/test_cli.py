"""Wrong input ends in one line, exit code 2, and nothing on the disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cache.commits import create_store, take_snapshot
from cache.record import Record
from cache.spec import StoreSpec
from cache.storage import LocalStorage
from cache.writer import write_unit
from cluster.cli import main


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path) -> Path:
    (tmp_path / "teacher").symlink_to(tiny_model)
    (tmp_path / "examples.jsonl").write_text('{"prompt": "say one", "response": "one"}\n')
    (tmp_path / "capture.toml").write_text(
        'examples = "examples.jsonl"\nstore = "stores/s"\n[teacher]\nmodel = "teacher"\n[targets]\nk = 8\n'
    )
    (tmp_path / "train.toml").write_text(
        'output = "runs/x"\n[data]\nstore = "stores/s"\n[model.config]\nmodel_type = "llama"\n'
        "[optimizer]\nlr = 0.001\n[run]\nsteps = 1\n"
    )
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> str:
    """Run a command that must fail; returns its one line."""
    before = sorted(root.rglob("*"))
    assert main(["--root", str(root), *arguments]) == 2
    assert sorted(root.rglob("*")) == before, "something was left behind"
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and error.startswith("logitbank: ")
    return error


@pytest.mark.parametrize(
    "change, message",
    [
        ("examples=none.jsonl", "none.jsonl: no such file"),
        ("examples=empty.jsonl", "empty.jsonl: empty"),
        ("examples=bad.jsonl", "bad.jsonl, line 2"),
        ("unit_sise=3", "unknown key 'unit_sise'"),
        ("teacher.model=nowhere/at/all", "'nowhere/at/all' is not a model: no such folder"),
        ("teacher.model=hollow", "is not a model: no config.json"),
        ("targets.k=100000", "targets.k = 100000 is larger than the teacher's vocabulary of 325"),
    ],
)
def test_wrong_captures_are_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    (workplace / "empty.jsonl").write_text("")
    (workplace / "bad.jsonl").write_text('{"prompt": "fine"}\n{"prompt": \n')
    (workplace / "hollow").mkdir()
    assert message in refused(capsys, workplace, "capture", str(workplace / "capture.toml"), "--set", change)


def test_a_store_of_another_fingerprint_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], spec: StoreSpec
) -> None:
    create_store(LocalStorage(workplace / "stores" / "s"), spec)
    error = refused(capsys, workplace, "capture", str(workplace / "capture.toml"))
    assert "another fingerprint" in error and "vocab_size: stored 500, wanted 325" in error


def test_a_dry_run_counts_and_writes_nothing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(workplace.rglob("*"))
    job = str(workplace / "capture.toml")
    assert main(["--root", str(workplace), "capture", job, "--dry-run"]) == 0
    assert "1 examples wanted, 0 refused, 1 missing in 1 units" in capsys.readouterr().out
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize("verb", ["inspect", "verify", "snapshot"])
def test_what_is_not_a_store_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert "not a store" in refused(capsys, workplace, verb, "nothing")


def test_training_without_a_store_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a store" in refused(capsys, workplace, "train", str(workplace / "train.toml"))


def test_inspect_and_verify_tell_what_is_there(
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    spec: StoreSpec,
    make_records: Callable[..., list[Record]],
) -> None:
    storage = LocalStorage(workplace / "stores" / "s")
    create_store(storage, spec)
    commit, _ = write_unit(storage, spec, make_records(3))
    take_snapshot(storage)
    root = ["--root", str(workplace)]
    assert main([*root, "inspect", "stores/s"]) == 0
    shown = capsys.readouterr().out
    for text in (spec.fingerprint, "k = 16", "3 (3 scored)", "18 carry a target", "bytes/token", "retained mass"):
        assert text in shown
    assert main([*root, "verify", "stores/s"]) == 0
    shard = storage.path(f"{commit.part}/entries/id/c/0")
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.write_bytes(data)
    capsys.readouterr()
    assert main([*root, "verify", "stores/s"]) == 1
    assert "entries/id/c/0: altered" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["examples", "capture", "train", "evaluate", "report", "inspect", "verify", "submit"])
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert "example: logitbank" in " ".join(capsys.readouterr().out.split())
