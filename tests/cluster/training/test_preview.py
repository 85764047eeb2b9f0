"""A dry run refuses what the run would refuse because of its output."""

from pathlib import Path

import pytest

from cache.errors import LogitbankError
from cache.json_documents import write_json
from cluster.runtime.outputs import write_job
from cluster.training.preview import preview_training
from cluster.training.snapshot_pinning import pin_snapshots
from student.training.planning.stores import OpenStores
from student.training.run_files import CHECKPOINTS, FORMAT
from tests.student.training.ranks import TOPK, make_store, settings_of


def test_a_dry_run_reads_the_earlier_run(tmp_path: Path, tiny_model: Path) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 40)
    settings = settings_of(tmp_path / "run", store, run={"steps": 5})
    write_job(settings.output, pin_snapshots(settings, OpenStores()))
    write_json(settings.output / CHECKPOINTS / "progress.json", {"step": 3, "ranks": 1, "format": FORMAT})
    files = sorted(tmp_path.rglob("*"))
    assert "40 training examples with 475 tokens, 5 steps of 8 examples" in preview_training(settings)
    with pytest.raises(LogitbankError, match="has a run of 3 steps already"):
        preview_training(settings_of(tmp_path / "run", store, run={"steps": 2}))
    with pytest.raises(LogitbankError, match=r"optimizer\.lr"):
        preview_training(settings_of(tmp_path / "run", store, run={"steps": 5}, optimizer={"lr": 0.5}))
    assert sorted(tmp_path.rglob("*")) == files


def test_a_run_of_an_earlier_version_is_the_same_job(tmp_path: Path, tiny_model: Path) -> None:
    """Its job.json lacks the keys that are new. Would catch a default that counts as another setting."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 40)
    settings = settings_of(tmp_path / "run", store, run={"steps": 5})
    document = pin_snapshots(settings, OpenStores()).model_dump(mode="json")
    for table, key in (
        ("optimizer", "name"),
        ("optimizer", "momentum"),
        ("run", "batch_tokens"),
        ("tracking", "mlflow"),
    ):
        del document[table][key]
    write_json(settings.output / "job.json", document)
    write_json(settings.output / CHECKPOINTS / "progress.json", {"step": 3, "ranks": 1, "format": FORMAT})
    assert "40 training examples" in preview_training(settings)
    document["optimizer"]["lr"] = 0.5
    write_json(settings.output / "job.json", document)
    with pytest.raises(LogitbankError, match=r"optimizer\.lr: was 0\.5, now 0\.003\); give"):
        preview_training(settings)


def test_other_optimizers_keep_their_ranks(tmp_path: Path, tiny_model: Path) -> None:
    """Would catch a run that is refused by its ranks, minutes later."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 40)
    for name, optimizer in (("adamw", {}), ("muon", {"name": "muon", "adam_lr": 0.003})):
        settings = settings_of(tmp_path / name, store, run={"steps": 5, "ranks": 2}, optimizer=optimizer)
        write_job(settings.output, pin_snapshots(settings, OpenStores()))
        write_json(settings.output / CHECKPOINTS / "progress.json", {"step": 3, "ranks": 1, "format": FORMAT})
        if name == "adamw":
            assert "on 2 ranks" in preview_training(settings)
        else:
            with pytest.raises(
                LogitbankError, match="continues with the number of ranks that it had, 1, and not with 2"
            ):
                preview_training(settings)
