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
