"""How many requests an object store gets: each costs money, and the time of a round trip."""

from collections import Counter

import numpy as np
import pytest

from cache.parts.layout import PROFILES, Profile
from cache.storage import object_store
from cache.storage.object_store import ObjectStorage
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from tests.cache.rows.rows import TARGETS, random_record, store_spec
from tests.cache.storage.s3_faults import FaultyServer

SPEC = store_spec(TARGETS["topk"])


def unit_of(number: int) -> list:
    rng = np.random.default_rng(number)
    return [random_record(rng, f"{number} {i}", 5, 200, SPEC.targets) for i in range(40)]


def counted(server: FaultyServer) -> tuple[int, Counter[str]]:
    """Requests since the last call, in all and by method."""
    methods = Counter(method for method, _ in server.requests)
    server.requests.clear()
    return sum(methods.values()), methods


@pytest.mark.parametrize("profile", PROFILES)
def test_units_and_windows_take_few_requests(
    profile: Profile, server: FaultyServer, bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit: its part, its commit, the part read back, a look whether it is still there. Opening a part is one
    request, a window one for each run of near chunks, of which a small part has one."""
    storage = ObjectStorage(bucket_uri)
    create_store(storage, SPEC)
    codebooks = CodebookChoice(storage, SPEC)
    write_unit(storage, SPEC, unit_of(0), profile, codebooks)
    counted(server)
    write_unit(storage, SPEC, unit_of(1), profile, codebooks)
    total, methods = counted(server)
    assert total == 4 and methods == {"PUT": 2, "GET": 1, "HEAD": 1}
    write_unit(storage, SPEC, unit_of(2), profile)
    total, methods = counted(server)
    assert methods["PUT"] == 2 and total <= (9 if profile == "compact" else 4), "a new writer looks for the codebook"
    take_snapshot(storage)
    counted(server)
    store = LogitStore.open(bucket_uri)
    store.window(0)
    first, _ = counted(server)
    assert first <= 8
    units = [int(np.flatnonzero(store.index.unit_of == unit)[3]) for unit in (1, 2)]
    store.window(units[0])
    later, _ = counted(server)
    assert later == 2, "the tail of the part, and the window"
    store.window(units[0], 5, 9)
    assert counted(server)[0] == 1
    monkeypatch.setattr(object_store, "MERGED_GAP", 0)
    store.window(units[1])
    assert counted(server)[0] > 4, "one for each array"


def test_a_long_file_is_written_in_pieces(
    server: FaultyServer, bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service refuses more than 5 GiB in one request."""
    monkeypatch.setattr(object_store, "MAX_PUT_BYTES", 6 << 20)
    monkeypatch.setattr(object_store, "MULTIPART_BYTES", 5 << 20)
    storage = ObjectStorage(bucket_uri)
    storage.create("x", b"")
    counted(server)
    data = np.random.default_rng(0).bytes(11 << 20)
    storage.write_file("long", data)
    _, methods = counted(server)
    assert methods == {"POST": 2, "PUT": 3}
    assert storage.read("long") == data
    counted(server)
    storage.write_file("short", data[: 6 << 20])
    assert counted(server)[1] == {"PUT": 1}
