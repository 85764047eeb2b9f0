"""Which checkpoint of a run is current, and which ones are kept."""

import json
import shutil
from pathlib import Path

import pytest

from cache.errors import InputError
from student.training.engine.checkpoints import commit_checkpoint, remove_unfinished, require_known_format
from student.training.run_files import read_progress


def write(folder: Path, step: int, keep: int) -> None:
    (folder / f"step-{step}").mkdir(parents=True)
    commit_checkpoint(folder, step, {"ranks": 2}, keep)


@pytest.mark.parametrize("keep, left", [(1, [30]), (2, [20, 30]), (9, [10, 20, 30])])
def test_the_newest_checkpoints_are_kept(tmp_path: Path, keep: int, left: list[int]) -> None:
    """Would catch a checkpoint that is removed before the next one is complete, and old conversions that stay."""
    for step in (10, 20, 30):
        write(tmp_path, step, keep)
        (tmp_path / f"step-{step}-universal").mkdir()
    write(tmp_path, 31, keep + 1)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == sorted(
        ["step-31", *(f"step-{step}{form}" for step in left for form in ("", "-universal"))]
    )
    assert (read_progress(tmp_path) or {})["step"] == 31


def test_a_user_goes_back_by_removing_the_newest(tmp_path: Path) -> None:
    """After a run went wrong. The next checkpoint is current again, also with a smaller number."""
    assert read_progress(tmp_path) is None
    for step in (10, 20, 30):
        write(tmp_path, step, 3)
    shutil.rmtree(tmp_path / "step-30")
    assert (read_progress(tmp_path) or {})["step"] == 20
    shutil.rmtree(tmp_path / "step-20")
    write(tmp_path, 15, 3)
    assert (read_progress(tmp_path) or {})["step"] == 15


def test_an_unfinished_checkpoint_is_never_current(tmp_path: Path) -> None:
    """A kill while step 20 is written."""
    write(tmp_path, 10, 2)
    (tmp_path / "step-20").mkdir()
    assert (read_progress(tmp_path) or {})["step"] == 10
    write(tmp_path, 15, 2)
    assert not (tmp_path / "step-20").exists()


def test_checkpoints_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    """Their optimizer has one group of weights. Would catch an error of DeepSpeed in place of a sentence."""
    require_known_format(tmp_path)
    write(tmp_path, 10, 2)
    require_known_format(tmp_path)
    (tmp_path / "progress.json").write_text(json.dumps({"step": 10, "ranks": 2}))
    with pytest.raises(InputError, match=r"earlier version .* another output"):
        require_known_format(tmp_path)


def test_a_save_begins_without_the_files_of_a_killed_one(tmp_path: Path) -> None:
    """Those of more ranks would be taken for a part of it when the number of ranks changes next."""
    commit_checkpoint(tmp_path, 4, {"ranks": 2}, 2)
    for name in ("step-4", "step-6", "step-6-universal"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "zero_pp_rank_1_mp_rank_00_optim_states.pt").touch()
    remove_unfinished(tmp_path, 6)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-4"]
