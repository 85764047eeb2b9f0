"""A forgotten example is gone: from the next snapshot, then from every file, with its texts and its key."""

import contextlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr

from cache.errors import InputError, LogitbankError, StoreError
from cache.parts.layout import Profile
from cache.rows.record import Record
from cache.rows.spec import TargetMode, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import committed_units, create_store, read_commit
from cache.store.copying.transcode import transcode_store
from cache.store.fill import fill_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cache.store.snapshot_reading import latest_snapshot, snapshot_numbers
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.expiring import expire_snapshots
from cache.store.upkeep.forgetting import forget_examples
from cache.store.upkeep.garbage_collection import GRACE_SECONDS, collect_garbage
from cache.store.verify import verify_store
from cache.store.withdrawal.forgotten import forgotten_keys
from tests.cache.rows.rows import MODES, TARGETS, assert_same_record, random_record, store_spec

UNITS, EXAMPLES = 4, 5


def make_records(targets: TargetSpec, units: int = UNITS) -> list[list[Record]]:
    rng = np.random.default_rng(0)
    return [[random_record(rng, f"u{u}e{i}", 3, 9, targets) for i in range(EXAMPLES)] for u in range(units)]


def make_store(folder: Path, mode: TargetMode = "topk", profile: Profile = "compact") -> LocalStorage:
    """Two snapshots of two units each, an example in quarantine."""
    storage, targets = LocalStorage(folder), TARGETS[mode]
    create_store(storage, store_spec(targets))
    for number, unit in enumerate(make_records(targets), start=1):
        write_unit(storage, store_spec(targets), unit, profile)
        if number % 2 == 0:
            take_snapshot(storage)
    quarantine_example(storage, "ab" * 16, "u9", "too long")
    take_snapshot(storage)
    return storage


def all_content(storage: LocalStorage) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file, and of every array and document in it, decoded by zarr-python and zipfile."""
    for path in sorted(path for path in storage.root.rglob("*") if path.is_file()):
        name = str(path.relative_to(storage.root))
        data = path.read_bytes()
        yield name, data
        if not name.endswith(".zip"):
            continue
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.namelist():
                yield f"{name}:{entry}", archive.read(entry)
        group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
        for array, values in group.members(max_depth=None):
            if isinstance(values, zarr.Array):
                yield f"{name}:{array}", np.ascontiguousarray(values[...]).tobytes()


def files_with(storage: LocalStorage, secrets: list[bytes]) -> set[str]:
    return {name for name, data in all_content(storage) if any(secret in data for secret in secrets)}


def secrets_of(records: list[Record]) -> list[bytes]:
    """Key in text and in bytes, id, texts as they are stored, token ids as uint32."""
    found = []
    for record in records:
        example = record.tokenized.example
        found += [record.key.encode(), bytes.fromhex(record.key), json.dumps(example.id).encode()]
        found += [record.tokenized.tokens[2:9].astype("<u4").tobytes()]
    return found


def take_down(storage: LocalStorage, names: list[str]) -> None:
    forget_examples(str(storage), names, "a request")
    take_snapshot(storage)
    expire_snapshots(storage, keep=1)
    collect_garbage(storage)


@pytest.mark.parametrize(
    "mode, profile", [(mode, "compact") for mode in MODES] + [("topk", "portable"), ("sampled", "fast")]
)
def test_nothing_remains_of_a_forgotten_example_and_all_others_stay(
    mode: TargetMode, profile: Profile, tmp_path: Path
) -> None:
    storage = make_store(tmp_path / "store", mode, profile)
    records = [record for unit in make_records(TARGETS[mode]) for record in unit]
    forgotten = [records[3], records[7], *records[10:15]]  # two units lose one, one unit loses all
    kept = [record for record in records if record not in forgotten]
    before = {record.key: record for record in LogitStore.open(storage.root)}
    order = [record.key for record in LogitStore.open(storage.root)]
    secrets = secrets_of(forgotten)
    assert len(files_with(storage, secrets)) > 6
    # Of the three ways to name them each one.
    names = ["u0e3", records[7].key, *(record.tokenized.example.id for record in records[10:15])]
    take_down(storage, names)
    left = files_with(storage, secrets)
    assert left == {f"forgotten/{record.key}.json" for record in forgotten}
    for name, data in all_content(storage):  # the documents have the key, and no id
        assert name not in left or not any(json.dumps(r.tokenized.example.id).encode() in data for r in forgotten)
    store = LogitStore.open(storage.root)
    assert [record.key for record in store] == [key for key in order if key in {record.key for record in kept}]
    for record in store:
        assert_same_record(record, before[record.key])
    report = verify_store(str(storage))
    assert not report.problems and not report.remaining and not report.uncommitted
    assert report.examples == len(kept) and report.doubles == 0
    assert len(committed_units(storage)) == UNITS - 1
    info = store.info()
    assert info.doubles == 0 and info.quarantined == 1


def test_each_step_does_its_part(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    records = [record for unit in make_records(TARGETS["topk"]) for record in unit]
    key = records[6].key
    report = forget_examples(str(storage), ["u1e1"], "a request")
    assert report.keys == (key,) and not report.known and not report.absent
    assert forget_examples(str(storage), ["u1e1"]).known == (key,), "a killed command may be run again"
    again = forget_examples(str(storage), [key, key.upper()])
    assert not again.keys and again.known == (key,)
    assert len(LogitStore.open(storage.root)) == 20, "a snapshot never changes"
    assert len(LogitStore.open(storage.root, unpinned=True)) == 19
    (line,) = collect_garbage(storage).waiting
    assert "run 'logitbank snapshot' first" in line
    assert any(name.startswith("commits/") for name in verify_store(str(storage)).remaining)
    before = snapshot_numbers(storage)
    number = take_snapshot(storage).number
    assert take_snapshot(storage).number == number == before[-1] + 1
    for snapshot in before:
        assert len(LogitStore.open(storage.root, snapshot=snapshot)) == (10 if snapshot == 1 else 20)
    (line,) = collect_garbage(storage, grace=-1.0).waiting
    assert f"snapshots 1 to {before[-1]} list it: run 'logitbank expire'" in line
    assert len(list(LogitStore.open(storage.root, snapshot=2))) == 20, "old snapshots stay readable"
    assert expire_snapshots(storage, keep=1) == before
    dry, real = collect_garbage(storage, dry_run=True), collect_garbage(storage)
    assert dry.removed == real.removed and not real.waiting
    with pytest.raises(
        StoreError, match=f"no snapshot 1; the newest is {number}, the oldest {number}; earlier ones are expired"
    ):
        LogitStore.open(storage.root, snapshot=1)
    assert not verify_store(str(storage)).remaining and not verify_store(str(storage)).problems


def test_an_example_that_is_forgotten_before_any_snapshot_or_in_quarantine(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    spec = store_spec(TARGETS["topk"])
    create_store(storage, spec)
    first, second, *_ = make_records(TARGETS["topk"])
    write_unit(storage, spec, first)
    quarantine_example(storage, "cd" * 16, "secret name", "the text is too long")
    forget_examples(str(storage), ["u0e0", "secret name"])
    take_snapshot(storage)
    write_unit(storage, spec, second)
    forget_examples(str(storage), ["u1e0"])
    take_snapshot(storage)
    expire_snapshots(storage, keep=1)
    collect_garbage(storage)
    secrets = [*secrets_of([first[0], second[0]]), b"secret name", b"cd" * 16]
    assert files_with(storage, secrets) == {f"forgotten/{key}.json" for key in forgotten_keys(storage)}
    assert len(LogitStore.open(storage.root)) == 8 and not verify_store(str(storage)).problems


def test_a_writer_that_brings_a_forgotten_example_again_does_not_keep_it(tmp_path: Path) -> None:
    """A machine that slept has the unit as it was, or the example in another unit. A killed one left its file."""
    storage = make_store(tmp_path / "store")
    units = make_records(TARGETS["topk"])
    old = storage.read(read_commit(storage, committed_units(storage)[0])[0].part.path)
    take_down(storage, ["u0e3"])
    expected = [record.key for record in LogitStore.open(storage.root)]
    spec = store_spec(TARGETS["topk"])
    write_unit(storage, spec, units[0])
    write_unit(storage, spec, [units[0][3], units[0][1]])
    for unit in committed_units(storage):
        storage.write_file(f"parts/{unit}/{'0' * 32}.zarr.zip", old)
    take_snapshot(storage)
    expire_snapshots(storage, keep=1)
    collect_garbage(storage)
    assert [record.key for record in LogitStore.open(storage.root)] == expected
    left = files_with(storage, secrets_of([units[0][3]]))
    assert left == {f"forgotten/{units[0][3].key}.json"}
    assert not verify_store(str(storage)).problems


def test_a_copy_an_import_and_a_rerun_leave_forgotten_examples_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = make_store(tmp_path / "store")
    records = [record for unit in make_records(TARGETS["topk"]) for record in unit]
    forget_examples(str(storage), ["u0e3", "u2e0"])
    transcode_store(str(storage), str(tmp_path / "copy"), "portable")  # of a snapshot that still has them
    copy = LocalStorage(tmp_path / "copy")
    assert len(LogitStore.open(copy.root)) == 18 and not verify_store(str(copy)).remaining
    assert forgotten_keys(copy) == forgotten_keys(storage)
    take_down(storage, [])
    before = committed_units(storage)
    spec = store_spec(TARGETS["topk"])
    fill_store(str(storage), spec, records, 20, unit_examples=EXAMPLES)
    assert "2 records are forgotten in this store and were left out" in caplog.text
    assert committed_units(storage) == before, "units without forgotten examples have the names that a rerun gives them"
    assert len(LogitStore.open(storage.root)) == 18


def test_the_same_examples_in_two_units(tmp_path: Path) -> None:
    """What is left of a unit may be a unit that exists already, earlier or later."""
    spec = store_spec(TARGETS["topk"])
    (unit, other, *_) = make_records(TARGETS["topk"])
    for order in ("inner first", "outer first", "together"):
        storage = LocalStorage(tmp_path / order)
        create_store(storage, spec)
        parts = [unit[1:], unit] if order == "inner first" else [unit, unit[1:]]
        for part in parts:
            write_unit(storage, spec, part)
            if order != "together":
                take_snapshot(storage)
        write_unit(storage, spec, other)
        take_snapshot(storage)
        take_down(storage, [unit[0].key])
        found = {record.key for record in LogitStore.open(storage.root)}
        assert found == {record.key for record in unit[1:] + other}, order
        assert not verify_store(str(storage)).problems and len(committed_units(storage)) == 2


def test_names_that_are_neither_id_nor_key_are_refused_and_nothing_is_marked(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    for names in (["u0e3", "nobody"], ["ab"], ["u0e"], [""]):
        with pytest.raises(InputError, match="nothing was marked"):
            forget_examples(str(storage), names)
    assert forgotten_keys(storage) == []
    report = forget_examples(str(storage), ["ef" * 16])
    assert report.absent == ("ef" * 16,) and take_snapshot(storage).examples == 20


def test_snapshots_expire_from_the_oldest_on(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    assert snapshot_numbers(storage) == [1, 2, 3]
    for keep in (0, -1):
        with pytest.raises(InputError, match="give 1 or more"):
            expire_snapshots(storage, keep=keep)
    with pytest.raises(InputError, match="either"):
        expire_snapshots(storage)
    assert expire_snapshots(storage, keep=5) == []
    assert expire_snapshots(storage, before=datetime.now(UTC) - timedelta(days=1)) == []
    assert expire_snapshots(storage, keep=2) == [1]
    assert expire_snapshots(storage, before=datetime.now(UTC) + timedelta(days=1)) == [2]
    assert snapshot_numbers(storage) == [3] and latest_snapshot(storage) == 3
    assert not verify_store(str(storage)).problems
    assert len(collect_garbage(storage, grace=-1.0).removed) >= 2  # what only they listed
    assert len(list(LogitStore.open(storage.root))) == 20 and not verify_store(str(storage)).problems


def test_a_unit_that_cannot_be_read_stops_no_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = make_store(tmp_path / "store")
    key = make_records(TARGETS["topk"])[0][3].key
    (unit,) = [u for u in committed_units(storage) if key in {e.key for e in read_commit(storage, u)[0].examples}]
    path = storage.path(read_commit(storage, unit)[0].part.path)
    path.write_bytes(path.read_bytes()[:-100])
    forget_examples(str(storage), [make_records(TARGETS["topk"])[1][0].key, key])
    take_snapshot(storage)
    assert "its unit keeps a forgotten example, which is not read" in caplog.text
    store = LogitStore.open(storage.root)
    assert len(store) == 18 and key not in [store.key(i) for i in range(18)]


def test_a_lost_mark_is_noticed(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    take_down(storage, ["u0e3"])
    storage.path(f"forgotten/{forgotten_keys(storage)[0]}.json").unlink()
    assert "forgotten: 1 documents are missing" in " ".join(verify_store(str(storage)).problems)


CALLS = ("link", "unlink", "rmdir", "mkdir")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["forget", "snapshot", "expire", "gc"])
def test_a_kill_at_any_point_loses_nothing(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that changes a name is the last one in turn. Then the steps are run again."""
    sound = make_store(tmp_path / "sound")
    before = {record.key: record for record in LogitStore.open(sound.root)}
    gone = [
        records for unit in make_records(TARGETS["topk"]) for records in unit if records.tokenized.example.id == "u1e1"
    ]
    steps = {
        "forget": lambda storage: forget_examples(str(storage), ["u1e1"]),
        "snapshot": take_snapshot,
        "expire": lambda storage: expire_snapshots(storage, keep=1),
        "gc": lambda storage: collect_garbage(storage, GRACE_SECONDS),
    }
    names = list(steps)
    for name in names[: names.index(step)]:
        steps[name](sound)

    class KilledError(BaseException):
        pass

    def run(number: int) -> int:
        """Kill the step at a call. Returns the number of calls."""
        storage = LocalStorage(shutil.copytree(sound.root, tmp_path / "run"))
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: None)
            for call in CALLS:

                def wrapped(*arguments: object, original: object = getattr(os, call), **options: object) -> object:
                    nonlocal calls
                    calls += 1
                    if calls >= number > 0:
                        raise KilledError
                    return original(*arguments, **options)  # type: ignore[operator]

                patch.setattr(os, call, wrapped)
            with contextlib.suppress(KilledError):
                steps[step](storage)
        for path in storage.root.rglob(".*"):  # a killed process removes no drafts
            path.unlink()
        found = {record.key: record for record in LogitStore.open(storage.root)}
        assert found.keys() | {gone[0].key} == before.keys()
        for key, record in found.items():
            assert_same_record(record, before[key])
        if number:
            for name in names if step == "forget" else names[1:]:
                steps[name](storage)
            assert len(LogitStore.open(storage.root)) == len(before) - 1
            assert files_with(storage, secrets_of(gone)) == {f"forgotten/{gone[0].key}.json"}
            report = verify_store(str(storage))
            assert not report.problems and not report.remaining
        shutil.rmtree(storage.root)
        return calls

    for number in range(1, run(0) + 1):
        run(number)


def test_forgetting_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(LogitbankError, match="not a store"):
        forget_examples(str(tmp_path / "nothing"), ["a"])
