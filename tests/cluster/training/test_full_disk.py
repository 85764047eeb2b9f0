"""A training on a disk that is full ends with one line that says so, and goes on when there is space."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.errors import StoreError
from cluster.training.driver import run_training
from student.training.run_files import full_disk_named
from tests.student.training.ranks import TOPK, make_store, settings_of

SMALL = "size=2m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(disk)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this machine lets no test mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_run_goes_on(tmp_path: Path, tiny_model: Path, small_disk: Path) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 19)
    run = {"steps": 12, "ranks": 1, "zero_stage": 0, "checkpoint_every": 4}
    job = settings_of(small_disk / "run", store, run=run, tracking={"tensorboard": False})
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (1_700 << 10))
    with pytest.raises(StoreError, match=r"run: no space is left on the disk; free some"):
        run_training(job, None)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert run_training(job, None)["steps"] == 12


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), full_disk_named(tmp_path):
        raise RuntimeError("shapes do not fit")
    with pytest.raises(StoreError, match="no space"), full_disk_named(tmp_path):
        raise OSError(28, "No space left on device")
