"""A folder and a bucket give the same guarantees, and a store in a bucket works like one in a folder."""

import multiprocessing
import pickle
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cache.errors import IntegrityError, StoreError
from cache.parts.zarr_zip import group_of_file
from cache.rows.record import Record, Window
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.local import LocalStorage
from cache.storage.object_store import ObjectStorage
from cache.storage.open import open_storage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cache.store.segments.files import units_path
from cache.store.snapshot_reading import latest_snapshot
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.rows.rows import (
    TARGETS,
    assert_same_record,
    assert_same_window,
    assert_stored,
    random_record,
    store_spec,
)
from tests.cache.storage.conftest import SECRET

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
BUCKET = "bucket"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of a server with an empty bucket."""
    for module in ("moto", "flask", "flask_cors", "obstore"):
        pytest.importorskip(module)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.cache.storage.s3_server"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        assert port, "the server did not start"
        address = f"http://127.0.0.1:{port}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(urllib.request.Request(f"{address}/{BUCKET}", method="PUT")).close()
        yield address
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3_uri(s3_server: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty prefix."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/store"


@pytest.fixture(params=["folder", "bucket"])
def any_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "folder" else str(request.getfixturevalue("s3_uri"))


@pytest.fixture
def any_storage(any_uri: str) -> Storage:
    return open_storage(any_uri)


def test_a_file_is_read_as_it_was_created(any_storage: Storage) -> None:
    for data in (b"", b"x", bytes(range(256)) * 1000):
        name = f"a/b/{len(data)}"
        assert any_storage.size(name) is None
        assert any_storage.create(name, data) is True
        assert any_storage.read(name) == data
        assert any_storage.size(name) == len(data)
    for call in (any_storage.read, lambda name: any_storage.read_ranges([(name, 0, 5)])):
        for absent in ("absent", "a/b/absent", "a/b/1/absent"):
            with pytest.raises(IntegrityError, match=f"{absent}: missing"):
                call(absent)


def test_what_exists_is_not_created_again(any_storage: Storage) -> None:
    assert any_storage.create("claim", b"first")
    assert any_storage.create("claim", b"second") is False
    assert any_storage.read("claim") == b"first"


def test_ranges_are_cut_where_the_file_ends(any_storage: Storage) -> None:
    data = np.random.default_rng(0).bytes(1000)
    any_storage.write_folder("folder", {"file": data, "empty": b""})
    wanted = [(0, 10), (990, 10), (990, 100), (1000, 5), (5000, 5), (500, 0), (0, 1000), (0, 2000), (3, 1)]
    found = any_storage.read_ranges([("folder/file", start, length) for start, length in wanted])
    assert found == [data[start : start + length] for start, length in wanted]
    assert any_storage.read_ranges([("folder/file", 7, 3)]) == [data[7:10]]
    assert any_storage.read_ranges([("folder/empty", 0, 3)]) == [b""]
    assert any_storage.read_ranges([]) == []


def test_many_ranges_come_in_the_requested_order(any_storage: Storage) -> None:
    files = {f"{i}": bytes([i]) * 100 for i in range(40)}
    any_storage.write_folder("many", files)
    order = np.random.default_rng(1).integers(0, 40, 100).tolist()
    found = any_storage.read_ranges([(f"many/{i}", i, 7) for i in order])
    assert found == [bytes([i]) * 7 for i in order]


def test_names_are_those_directly_in_a_folder(any_storage: Storage) -> None:
    any_storage.write_folder("top", {"b.json": b"1", "a.json": b"2", "c.txt": b"3", "deep/er/x.json": b"4", ".x": b""})
    any_storage.create("top-not/y.json", b"5")
    assert any_storage.names("top") == ["a.json", "b.json", "c.txt", "deep"]
    assert any_storage.names("top", ".json") == ["a.json", "b.json"]
    assert any_storage.names("top/deep") == ["er"]
    assert any_storage.names("absent") == any_storage.names("top/a.json") == []


def test_a_walk_finds_all_files_below_and_no_neighbours(any_storage: Storage) -> None:
    any_storage.write_folder("top", {"b": b"1", "a/c": b"2", "a/d/e": b"3"})
    any_storage.write_folder("top2", {"f": b"4"})
    assert list(any_storage.walk("top")) == ["top/a/c", "top/a/d/e", "top/b"]
    assert list(any_storage.walk("top/a/c")) == ["top/a/c"]
    assert list(any_storage.walk("absent")) == list(any_storage.walk("to")) == []


def test_a_folder_is_removed_with_all_below_it_and_nothing_else(any_storage: Storage) -> None:
    for folder in ("parts/a", "parts/ab", "parts/b"):
        any_storage.write_folder(folder, {"x": b"1", "y/z": b"2"})
    any_storage.remove_folder("parts/a")
    assert any_storage.names("parts") == ["ab", "b"]
    assert list(any_storage.walk("parts/ab")) == ["parts/ab/x", "parts/ab/y/z"]
    any_storage.remove_folder("parts/a")
    any_storage.remove_folder("nothing/here")
    any_storage.remove_folder("parts/b/x")
    assert list(any_storage.walk("parts/b")) == ["parts/b/y/z"]
    assert any_storage.create("parts/b/x", b"again")


def test_of_racing_writers_one_wins_and_its_data_stay(any_storage: Storage) -> None:
    for turn in range(5):
        claims = [f"writer {i}".encode() for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda claim, turn=turn: any_storage.create(f"claims/{turn}", claim), claims))
        assert sum(won) == 1
        assert any_storage.read(f"claims/{turn}") == claims[won.index(True)]
    assert any_storage.names("claims") == [str(turn) for turn in range(5)] and not any_storage.drafts()


def test_age_is_that_of_the_newest_file(any_storage: Storage) -> None:
    assert any_storage.age("absent") == 0
    any_storage.write_folder("folder", {"x": b"1", "y/z": b"2"})
    for name in ("folder", "folder/y", "folder/y/z"):
        assert -2 <= any_storage.age(name) < 600
    assert sorted(any_storage.names("folder")) == ["x", "y"]


def test_bad_names_are_refused_everywhere(any_storage: Storage) -> None:
    for name in ("../x", "/x", "a/../x", "", "a//b", ".", "a\\b", "a\0b", "a/"):
        for call in (
            any_storage.read,
            any_storage.size,
            any_storage.names,
            any_storage.remove_folder,
            any_storage.age,
            lambda name: list(any_storage.walk(name)),
            lambda name: any_storage.read_ranges([(name, 0, 1)]),
            lambda name: any_storage.create(name, b"x"),
            lambda name: any_storage.write_folder(name, {"x": b"x"}),
            lambda name: any_storage.write_folder("parts/new", {name: b"x"}),
            lambda name: any_storage.write_file(name, b"x"),
        ):
            with pytest.raises(IntegrityError, match="not a path inside the store"):
                call(name)


def test_names_that_need_quoting_are_names(any_storage: Storage) -> None:
    for name in ("a b", "ü", "a%20b", "a+b", "a?b#c", "..a", "a&b=c"):
        assert any_storage.create(f"odd/{name}", name.encode())
        assert any_storage.read(f"odd/{name}") == name.encode()
        assert any_storage.read_ranges([(f"odd/{name}", 0, 1)]) == [name.encode()[:1]]
    assert set(any_storage.names("odd")) == {"a b", "ü", "a%20b", "a+b", "a?b#c", "a&b=c"}


def test_a_storage_travels_without_its_connection(any_storage: Storage) -> None:
    any_storage.create("x", b"1")
    data = pickle.dumps(any_storage)
    assert SECRET.encode() not in data
    copy = pickle.loads(data)
    assert str(copy) == str(any_storage) and copy.read("x") == b"1"


def records_of(unit: int) -> list[Record]:
    rng = np.random.default_rng(unit)
    return [random_record(rng, f"{unit} {i}", 3, 20, TARGETS["threshold"]) for i in range(3)]


def test_a_store_anywhere_is_written_read_and_verified(any_uri: str) -> None:
    spec = store_spec(TARGETS["threshold"])
    storage = open_storage(any_uri)
    with pytest.raises(StoreError, match="not a store"):
        LogitStore.open(any_uri)
    create_store(storage, spec)
    create_store(storage, spec)
    units = [records_of(unit) for unit in range(2)]
    for unit, profile in zip(units, ("compact", "portable"), strict=True):
        assert write_unit(storage, spec, unit, profile)[1]  # type: ignore[arg-type]
    assert take_snapshot(storage).number == 1 == take_snapshot(storage).number == latest_snapshot(storage)
    store = LogitStore.open(any_uri, expect=spec)
    written = {record.key: record for unit in units for record in unit}
    assert len(store) == 6
    for record in store:
        assert_stored(record.window, written[record.key].window, spec.targets)
        assert record.tokenized.example == written[record.key].tokenized.example
    for i, window in zip((4, 0, 4), store.windows([(4, 2, 9), (0, 0, None), (4, 0, 3)]), strict=True):
        assert len(window) in (7, 23, 3) and len(store.window(i, 5, 6)) == 1
    assert quarantine_example(storage, "0" * 32, "bad", "too long")
    assert take_snapshot(storage).number == 2
    report = verify_store(any_uri)
    assert not report.problems and not report.uncommitted and report.examples == 6
    assert not write_unit(storage, spec, units[0])[1]
    assert not collect_garbage(storage, grace=-10.0).removed
    store.check()


def test_lost_snapshots_are_made_again_anywhere(any_uri: str) -> None:
    spec = store_spec(TARGETS["threshold"])
    storage = open_storage(any_uri)
    create_store(storage, spec)
    snapshots = []
    for unit in range(3):
        write_unit(storage, spec, records_of(unit), "fast")
        snapshots.append(take_snapshot(storage))
    sound = {name: storage.read(name) for folder in ("snapshots", "index") for name in storage.walk(folder)}
    first, second = (snapshot.segments[0] for snapshot in snapshots[:2])
    for lost in (first.path, second.path, units_path(snapshots[2].segments[1].sha256), "snapshots/3.json"):
        storage.remove_folder(lost)
    for number in (1, 2, 3):
        assert len(list(LogitStore.open(any_uri, snapshot=number))) == 3 * number
    report = verify_store(any_uri, repair=True)
    assert len(report.repaired) == 4 and not report.problems
    assert {name: storage.read(name) for name in sound} == sound
    info = LogitStore.open(any_uri).info()
    assert info.bytes == storage.total_bytes() > info.part_bytes > 0


def test_a_store_in_a_bucket_is_the_one_in_a_folder(s3_uri: str, tmp_path: Path) -> None:
    spec = store_spec(TARGETS["threshold"])
    stores = []
    for uri in (s3_uri, str(tmp_path / "store")):
        storage = open_storage(uri)
        create_store(storage, spec)
        write_unit(storage, spec, records_of(0))
        take_snapshot(storage)
        stores.append(LogitStore.open(uri))
    for record, other in zip(*stores, strict=True):
        assert_same_record(record, other)


def test_damage_in_a_bucket_is_found_and_named(s3_uri: str) -> None:
    spec = store_spec(TARGETS["threshold"])
    storage = ObjectStorage(s3_uri)
    create_store(storage, spec)
    commit, _ = write_unit(storage, spec, records_of(0))
    take_snapshot(storage)
    name = commit.part.path
    sound = storage.read(name)
    place = group_of_file(sound, "x").shards["rank0/code"][0]
    flipped = sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :]
    for damaged in (flipped, sound[:-1], sound[:10], None):
        storage.remove_folder(name)
        if damaged is not None:
            storage.write_file(name, damaged)
        with pytest.raises(IntegrityError, match=name):
            list(LogitStore.open(s3_uri))
        assert name in " ".join(verify_store(s3_uri).problems)


def write_units(uri: str, spec: StoreSpec, start: int) -> None:
    storage = open_storage(uri)
    for i in range(3):
        write_unit(storage, spec, records_of((start + i) % 3))
    take_snapshot(storage)


def read_windows(store: LogitStore) -> list[Window]:
    return store.read(range(len(store)))


def test_processes_that_race_in_a_bucket_leave_one_of_each_unit(s3_uri: str) -> None:
    spec = store_spec(TARGETS["threshold"])
    create_store(open_storage(s3_uri), spec)
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        pool.starmap(write_units, [(s3_uri, spec, i) for i in range(4)], chunksize=1)
        report = verify_store(s3_uri)
        assert not report.problems and not report.uncommitted and report.examples == 9
        store = LogitStore.open(s3_uri)
        windows = read_windows(store)
        for window, other in zip(windows, pool.apply(read_windows, (store,)), strict=True):
            assert_same_window(window, other)
    written = {record.key: record for unit in range(3) for record in records_of(unit)}
    assert len(store) == 9
    for i, window in enumerate(windows):
        assert_stored(window, written[store.key(i)].window, spec.targets)


def ask(storage: ObjectStorage, answers: object) -> None:
    try:
        answers.send(storage.size("x"))  # type: ignore[attr-defined]
    except StoreError as error:
        answers.send(str(error))  # type: ignore[attr-defined]


def test_a_forked_process_gets_an_error_that_says_to_spawn(s3_uri: str) -> None:
    storage = ObjectStorage(s3_uri)
    storage.create("x", b"1")
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=ask, args=(storage, there))
    process.start()
    try:
        assert here.poll(30), "the forked process hangs"
        assert "start workers with spawn" in here.recv()
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("operation", ["open", "verify", "create", "write"])
@pytest.mark.parametrize("fault", ["bucket", "connection"])
def test_a_wrong_address_ends_in_one_line_without_secrets(
    fault: str, operation: str, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "bucket":
        uri = "s3://no-such-bucket/store"
    else:
        uri = s3_uri
        with socket.socket() as probe:  # a port that nobody listens on any more
            probe.bind(("127.0.0.1", 0))
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{probe.getsockname()[1]}")
    spec = store_spec(TARGETS["threshold"])
    calls: dict[str, Callable[[], object]] = {
        "open": lambda: LogitStore.open(uri),
        "verify": lambda: verify_store(uri),
        "create": lambda: create_store(open_storage(uri), spec),
        "write": lambda: write_unit(open_storage(uri), spec, records_of(0), "portable"),
    }
    with pytest.raises(StoreError) as refusal:
        calls[operation]()
    message = str(refusal.value)
    assert message.startswith(uri) and "\n" not in message
    assert SECRET not in message and len(message) < 600


@pytest.mark.parametrize(
    "uri",
    ["s3://", "s3:///x", f"s3://me:{SECRET}@bucket/x", f"s3://bucket/x?token={SECRET}", f"s3://{SECRET}@bucket/x"],
)
def test_an_address_with_secrets_or_without_a_bucket_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StoreError, match="expected an address such as") as refusal:
        open_storage(uri)
    assert SECRET not in str(refusal.value)


def test_an_unknown_kind_of_address_is_refused_in_one_line() -> None:
    with pytest.raises(StoreError) as refusal:
        LogitStore.open("gopher://host/store")
    assert "gopher://host/store" in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_path_is_a_folder(tmp_path: Path) -> None:
    assert isinstance(open_storage(tmp_path / "a"), LocalStorage)
    assert isinstance(open_storage("relative/folder"), LocalStorage)
