"""A takedown by commands, on a store of texts alone: forget, snapshot, expire, gc, verify; a capture does not bring it
back."""

from pathlib import Path

import pytest

from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from tests.cache.rows.rows import TARGETS, store_spec
from tests.cache.store.damage import units_of
from tests.cluster.commands.test_quarantine_verb import COUNT, Place, in_process, place  # noqa: F401


def test_a_takedown_by_commands(place: Place) -> None:  # noqa: F811
    """Of two captured examples and one in quarantine, named by id, by key, and in a file."""
    place.capture()
    store = place.folder / "s"
    key = place.data("inspect", "s") and LogitStore.open(store)[0].key
    (bad,) = place.data("quarantine", "s", "--example", "e3")["entries"]
    (place.folder / "names.txt").write_text(f"\n{key}\ne3\n")
    marked = place.data("forget", "s", "e9", "--from", "names.txt", "--reason", "request 12")
    assert len(marked["keys"]) == 3 and key in marked["keys"] and bad["key"] in marked["keys"]
    assert place.data("forget", "s", "e9")["known"] == marked["keys"][:1]
    place.run("verify", "s", code=1)
    preview = place.run("capture", str(place.folder / "capture.toml"), "--dry-run")
    assert "3 more responses are forgotten in this store" in preview
    place.run("snapshot", "s")
    waiting = place.run("gc", "s")
    assert "waiting: commits/" in waiting and "snapshot 1 list it: run 'logitbank expire'" in waiting.replace(
        "ts 1", "t 1"
    )
    assert place.data("expire", "s", "--keep", "1")["expired"] == [1]
    assert "removed commits/" in place.run("gc", "s")
    assert "verify: sound" in place.run("verify", "s")
    secrets = [b'"e9"', b'"e3"', key.encode(), bytes.fromhex(key), bad["key"].encode()]
    for path in (path for path in store.rglob("*") if path.is_file()):
        assert path.parent.name == "forgotten" or not any(secret in path.read_bytes() for secret in secrets), path
    place.calls.clear()
    outcome = place.capture()
    assert outcome["forgotten"] == 3 and outcome["captured"] == 0 and not {"say 9", "bad 3"} & place.turns().keys()
    assert "3 responses are forgotten in this store" in place.run(
        "capture", str(place.folder / "capture.toml"), "--set", f"engine.endpoint.base_url={place.address}"
    )
    place.agreed(8)
    assert len(LogitStore.open(store)) == COUNT - 8 - 2


def test_snapshots_expire_by_commands(place: Place) -> None:  # noqa: F811
    storage, spec = LocalStorage(place.folder / "t"), store_spec(TARGETS["topk"])
    create_store(storage, spec)
    for unit in units_of("topk", 3):
        write_unit(storage, spec, unit)
        take_snapshot(storage)
    assert "0 snapshots removed, 3 kept" in place.run("expire", "t", "--before", "2020-02-03")
    assert place.data("expire", "t", "--before", "2999-01-01T10:00") == {"expired": [1, 2], "kept": [3]}
    assert "no snapshot 1; the newest is 3, the oldest 3; earlier ones are expired" in place.run(
        "inspect", "t", "--snapshot", "1", code=2
    )
    for words, message in (
        (("expire", "t", "--keep", "0"), "give 1 or more"),
        (("expire", "t", "--before", "soon"), "--before soon: give a date"),
        (("forget", "t"), "name at least one id or key"),
        (("forget", "t", "nobody"), "no example has the id 'nobody'"),
        (("forget", "t", "--from", "no.txt"), "no.txt: no such file"),
        (("forget", "nothing", "a"), "not a store"),
        (("expire", "nothing", "--keep", "1"), "not a store"),
    ):
        assert message in place.run(*words, code=2)


def test_a_file_of_names_without_names_is_refused(place: Place, tmp_path: Path) -> None:  # noqa: F811
    (place.folder / "empty.txt").write_text("\n  \n")
    assert "has no id and no key" in place.run("forget", "t", "--from", "empty.txt", code=2)
    with pytest.raises(SystemExit):
        place.run("expire", "t", "--keep", "1", "--before", "2020-01-01")
