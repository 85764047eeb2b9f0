"""Every request of a capture that fails, in every way, leaves what was committed, and a rerun completes the rest."""

import os
import re
import uuid
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cache.errors import LogitbankError
from cache.rows.record import Record
from cache.rows.spec import TargetSpec
from cache.storage.object_store import ObjectStorage
from cache.store.commits import committed_units, create_store, read_commit
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example, quarantined_keys
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import assert_stored, random_record, store_spec
from tests.cache.storage.s3_faults import BUCKET, FAULTS, FaultyServer

pytestmark = pytest.mark.slow

SPEC = store_spec(TargetSpec("sampled", draws=8))
KEY = "0" * 32
# "all": every request in every way (some minutes); otherwise every creation in every way, and other requests in one.
EXTENT = os.environ.get("LOGITBANK_FAULTS", "")


def records() -> list[Record]:
    return [random_record(np.random.default_rng(i), f"example {i}", 2, 4, SPEC.targets) for i in range(2)]


def capture(storage: ObjectStorage, unit: list[Record]) -> None:
    """All that writes to a store: the spec, the codebook, a unit, quarantine, a snapshot."""
    create_store(storage, SPEC)
    write_unit(storage, SPEC, unit)
    quarantine_example(storage, KEY, "bad", "too long")
    take_snapshot(storage)


def kind_of(method: str, path: str) -> str:
    """A request without random names."""
    path = re.sub(r"^/bucket(/[0-9a-f]{32})?", "", path)
    return f"{method} {re.sub(r'[0-9a-f]{24,64}', '#', path)}"


def is_part(kind: str) -> bool:
    """Whether a request is about a file that only its writer knows, and so needs no condition."""
    return "/parts/" in kind


def kinds_of_requests(server: FaultyServer, unit: list[Record]) -> list[str]:
    server.requests.clear()
    capture(ObjectStorage(f"s3://{BUCKET}/{uuid.uuid4().hex}"), unit)
    return list(dict.fromkeys(kind_of(*request) for request in server.requests))


def fails_from(server: FaultyServer, kind: str, fault: str) -> Callable[[], bool]:
    """From now on all requests of this kind fail. Returns whether one did, if it is called later."""
    failed: list[str] = []

    def answer(method: str, path: str, conditional: bool) -> str | None:
        if kind_of(method, path) != kind:
            return None
        failed.append(path)
        return fault

    server.fault = answer
    return lambda: bool(failed)


def assert_sound(storage: ObjectStorage) -> None:
    """Every commit has its part."""
    for unit in committed_units(storage):
        commit = read_commit(storage, unit)[0]
        assert storage.size(commit.part.path) == commit.part.bytes


@pytest.mark.parametrize("fault", FAULTS)
def test_no_failing_request_loses_or_doubles_anything(fault: str, server: FaultyServer) -> None:
    """Would catch a commit without its part, a conflict taken for a missing file, a lost answer taken for a loss."""
    unit = records()
    expected = {record.key: record for record in unit}
    kinds = kinds_of_requests(server, unit)
    assert len(kinds) > 20
    refused = 0
    for number, kind in enumerate(kinds):
        is_creation = kind.startswith("PUT") and not is_part(kind)
        is_turn = number % len(FAULTS) == FAULTS.index(fault)
        if not (is_creation or EXTENT == "all" or is_turn) or (fault in ("409", "412") and not kind.startswith("PUT")):
            continue
        uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        storage = ObjectStorage(uri)
        has_failed = fails_from(server, kind, fault)
        try:
            capture(storage, unit)
        except LogitbankError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 700, kind
        assert has_failed(), kind
        server.fault = lambda method, path, conditional: None
        storage = ObjectStorage(uri)
        assert_sound(storage)
        capture(storage, unit)
        assert_sound(storage)
        store = LogitStore.open(uri)
        assert len(store) == len(unit) and store.info().units == 1 and quarantined_keys(storage) == [KEY], kind
        for record in store:
            assert_stored(record.window, expected[record.key].window, SPEC.targets)
        if EXTENT == "all":
            assert not verify_store(uri).problems, kind
    assert refused > 2


@pytest.mark.parametrize("fault", FAULTS)
def test_one_failing_creation_is_tried_again(fault: str, server: FaultyServer) -> None:
    """Nobody sees it: the spec, the codebook, the commit, quarantine, the index and the snapshot are written."""
    unit = records()
    creations = [kind for kind in kinds_of_requests(server, unit) if kind.startswith("PUT") and not is_part(kind)]
    assert {"PUT /spec.json", "PUT /codebooks/1.json", "PUT /codebooks/#.zarr.zip", "PUT /commits/#.json"} <= set(
        creations
    )
    open_kinds = set(creations)

    def fail_once(method: str, path: str, conditional: bool) -> str | None:
        kind = kind_of(method, path)
        if kind not in open_kinds:
            return None
        open_kinds.remove(kind)
        return fault

    server.fault = fail_once
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    capture(ObjectStorage(uri), unit)
    assert not open_kinds
    assert len(LogitStore.open(uri)) == 2 and not verify_store(uri).problems and not verify_store(uri).uncommitted


def test_a_conflict_with_another_writer_is_that_writers(server: FaultyServer, bucket_uri: str) -> None:
    """409 while another writer's object appears: it is the other's, not missing and not ours."""
    other, storage = ObjectStorage(bucket_uri), ObjectStorage(bucket_uri)
    other.create("warm", b"")
    storage.create("warm", b"")
    conflicts = 0

    def conflict(method: str, path: str, conditional: bool) -> str | None:
        nonlocal conflicts
        if method == "PUT" and path.endswith("/claim"):
            conflicts += 1
            return "409" if conflicts <= 2 else None
        return None

    server.fault = conflict
    assert storage.create("claim", b"mine") and conflicts == 3
    assert not other.create("claim", b"theirs") and other.read("claim") == b"mine"
    server.fault = lambda method, path, conditional: "409" if method == "PUT" else None
    with pytest.raises(LogitbankError, match=r"new: cannot be written: the service says that it exists, and that it"):
        storage.create("new", b"x")


@pytest.mark.parametrize("first_write", ["create", "folder", "file", "store", "unit"])
def test_a_service_that_ignores_conditions_is_refused_at_the_first_write(
    first_write: str, server: FaultyServer, bucket_uri: str
) -> None:
    server.ignores_conditions = True
    storage = ObjectStorage(bucket_uri)
    writes: dict[str, Callable[[], object]] = {
        "create": lambda: storage.create("x.json", b"one"),
        "folder": lambda: storage.write_folder("parts/x", {"a": b"1"}),
        "file": lambda: storage.write_file("parts/x", b"1"),
        "store": lambda: create_store(storage, SPEC),
        "unit": lambda: write_unit(storage, SPEC, records()),
    }
    for _ in range(2):
        with pytest.raises(LogitbankError, match=r"ignores conditional writes \(If-None-Match") as refusal:
            writes[first_write]()
        assert str(refusal.value).startswith(bucket_uri) and "\n" not in str(refusal.value)
    assert list(storage.walk("x.json")) == list(storage.walk("parts")) == storage.names("commits") == []


@pytest.mark.parametrize("fault", ["501", "500", "409"])
def test_a_service_that_refuses_conditions_is_named(fault: str, server: FaultyServer, bucket_uri: str) -> None:
    """By any error. 409 means that the service looks at conditions: it is not what is wrong with it."""
    server.fault = lambda method, path, conditional: fault if method == "PUT" and conditional else None
    message = "says that it exists" if fault == "409" else f"refuses .*{fault}.* conditional writes"
    with pytest.raises(LogitbankError, match=message):
        create_store(ObjectStorage(bucket_uri), SPEC)


def test_the_probe_costs_each_writer_one_request_and_readers_none(server: FaultyServer, bucket_uri: str) -> None:
    def probes() -> int:
        return sum(path.endswith(".conditional-writes") for _, path in server.requests)

    capture(ObjectStorage(bucket_uri), records())
    assert probes() == 2
    capture(ObjectStorage(bucket_uri), records())
    assert probes() == 3
    assert len(list(LogitStore.open(bucket_uri))) == 2 and not verify_store(bucket_uri).problems
    assert probes() == 3 and server.requests.count(("PUT", "x")) == 0


def test_a_spec_of_another_teacher_never_replaces_the_first(server: FaultyServer, bucket_uri: str) -> None:
    create_store(ObjectStorage(bucket_uri), SPEC)
    with pytest.raises(LogitbankError, match="another fingerprint"):
        create_store(ObjectStorage(bucket_uri), replace(SPEC, weights="others"))
