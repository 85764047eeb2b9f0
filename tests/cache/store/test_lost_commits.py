"""A lost or damaged commit: readers work on, a new snapshot names it, and a repair writes it as it was."""

from pathlib import Path

import pytest

from cache.errors import IntegrityError
from cache.parts.layout import Profile
from cache.rows.spec import TargetMode
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, store_spec
from tests.cache.store.damage import all_files, make_store, units_of
from tests.cache.store.test_lost_snapshots import damage

KINDS: list[tuple[TargetMode, Profile]] = [("topk", "compact"), ("nucleus", "portable"), ("sampled", "compact")]


@pytest.mark.parametrize("how", ["missing", "truncated", "flipped"])
@pytest.mark.parametrize("mode, profile", KINDS)
def test_a_lost_commit_is_written_again_as_it_was(tmp_path: Path, mode: TargetMode, profile: Profile, how: str) -> None:
    storage = make_store(tmp_path / "store", mode, profile, units=3)
    commits = sorted((storage.root / "commits").iterdir())
    sound = {path: path.read_bytes() for path in commits}
    for path in commits[1:]:
        damage(path, how)
    assert len(list(LogitStore.open(storage.root))) == 9
    problems = verify_store(str(storage)).problems
    assert len(problems) == 2 and all("verify --repair" in line for line in problems)
    report = verify_store(str(storage), repair=True)
    assert (report.problems, report.examples) == ([], 9)
    assert sorted(report.repaired) == [f"commits/{path.name}" for path in commits[1:]]
    assert {path: path.read_bytes() for path in commits} == sound
    assert not verify_store(str(storage)).problems


def test_a_capture_goes_on_after_the_repair_that_its_error_names(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    min((storage.root / "commits").iterdir()).unlink()
    write_unit(storage, store_spec(TARGETS["topk"]), units_of("topk", 1, seed=9)[0])
    with pytest.raises(
        IntegrityError, match=r"commits/.*missing.*verify --repair' writes it again if its part is whole"
    ):
        take_snapshot(storage)
    verify_store(str(storage), repair=True)
    assert take_snapshot(storage).units == 3 and not verify_store(str(storage)).problems


@pytest.mark.parametrize("how", ["missing", "flipped"])
def test_a_commit_whose_part_is_damaged_is_not_made_again(tmp_path: Path, how: str) -> None:
    storage = make_store(tmp_path / "store")
    unit = min((storage.root / "commits").iterdir())
    unit.unlink()
    (part,) = (storage.root / "parts" / unit.stem).iterdir()
    damage(part, how)
    before = all_files(storage)
    report = verify_store(str(storage), repair=True)
    assert not report.repaired and any("cannot be made again, because its part" in line for line in report.problems)
    assert all_files(storage) == before
