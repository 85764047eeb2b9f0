"""The quarantine of a store is listed, explained and cleared; all commands agree on its numbers."""

import asyncio
import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from cache.json_documents import decode_document, encode_document
from cache.store.copying.transcode import transcode_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantined_keys
from cache.store.snapshot_reading import latest_snapshot
from cache.store.snapshots import take_snapshot
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from cluster.capture import driver
from cluster.capture.actor import CaptureWorker
from cluster.capture.run import CaptureRun
from cluster.commands.main import main
from tests.cluster.capture.service_jobs import write_job
from tests.teacher_serving.engines.endpoint.endpoint_server import Call, Reply, completion, failing_service, failure

COUNT = 30
LONG = "one " * 400


def lines(bad: range = range(0, 6), long: int = 2) -> list[dict[str, Any]]:
    """Examples: some are refused by the service, the last ones are too long, and one is no example at all."""
    usual = [{"id": f"e{i}", "prompt": f"{'bad' if i in bad else 'say'} {i}"} for i in range(COUNT - long)]
    return [*usual, *({"id": f"long{i}", "prompt": f"{LONG}{i}"} for i in range(long))]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the driver capture in this process, without Ray: what Ray does is tested elsewhere."""

    def capture(run: CaptureRun) -> None:
        settings = run._job.settings
        worker = CaptureWorker(settings, run._job.description, False)
        asyncio.run(worker.ready())
        run._begin_store()
        run._log.begin()
        while not run._stream.is_exhausted:
            if (work := run._stream.take()) is not None:
                run._log.add(asyncio.run(worker.capture(work.units, work.number, work.places)))

    monkeypatch.setattr(CaptureRun, "capture", capture)
    monkeypatch.setattr(driver, "ray_session", lambda *_: nullcontext())


class Place:
    """A folder with a job, a service that refuses some turns, and the commands on it."""

    def __init__(self, folder: Path, address: str, calls: list[Call], capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.address, self.calls, self._capsys = folder, address, calls, capsys

    def run(self, *arguments: str, code: int = 0) -> str:
        assert main(["--root", str(self.folder), *arguments]) == code
        captured = self._capsys.readouterr()
        return captured.out if code == 0 else captured.err

    def data(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def capture(self) -> Any:
        change = f"engine.endpoint.base_url={self.address}"
        return self.data("capture", str(self.folder / "capture.toml"), "--set", change)

    def turns(self) -> Counter[str]:
        return Counter(call.turn for call in self.calls if call.turn != "Say yes.")

    def agreed(self, expected: int) -> dict[str, int]:
        """Check that all commands say that so many examples wait; returns the numbers by reason."""
        store = str(self.folder / "s")
        info = LogitStore.open(store, unpinned=True).info()
        pinned = LogitStore.open(store).info()
        status, inspected, listed = (
            self.data(*words) for words in (("status", "s"), ("inspect", "s"), ("quarantine", "s"))
        )
        assert (
            info.quarantined == pinned.quarantined == status["facts"]["in_quarantine"] == listed["waiting"] == expected
        )
        reasons = info.quarantine
        assert reasons == pinned.quarantine == inspected["quarantine"] == listed["reasons"]
        assert (status["facts"]["quarantine"] or {}) == reasons and sum(reasons.values()) == expected
        assert sum(not entry["is_obsolete"] for entry in listed["entries"]) == expected
        assert not verify_store(store).problems
        return reasons


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], in_process: None) -> Any:
    """The service refuses turns that begin with "bad" as long as `refuses` is in the folder."""
    write_job(tmp_path, tiny_model, lines(), unit_size=8)
    with (tmp_path / "examples.jsonl").open("a") as file:
        file.write('{"id": "none", "prompt": 7}\n')
    (tmp_path / "refuses").touch()

    def reply(call: Call) -> Reply:
        is_refused = call.turn.startswith("bad") and (tmp_path / "refuses").exists()
        return failure(400, f"content policy violation in '{call.turn}'") if is_refused else completion("one")

    with failing_service(reply) as (address, calls):
        yield Place(tmp_path, address, calls, capsys)


def test_all_commands_agree_by_reason(place: Place) -> None:
    outcome = place.capture()
    reasons = place.agreed(9)
    assert outcome["refused"] == 9 and outcome["reasons"] == reasons
    assert outcome["examples"] == COUNT - 8
    assert list(reasons.values()) == [6, 2, 1]
    assert next(iter(reasons)) == "the service refused the request (400): content policy violation in '...'"
    shown = place.run("inspect", "s")
    assert "9 in quarantine" in shown and "6: the service refused the request (400)" in shown
    listed = place.run("quarantine", "s")
    assert "6: the service refused" in listed and "e5" in listed and "quarantine: 9 waiting, 0 obsolete in s" in listed
    text = place.run(
        "capture", str(place.folder / "capture.toml"), "--set", f"engine.endpoint.base_url={place.address}"
    )
    assert "9 in quarantine" in text and "in quarantine, 6: the service refused" in text
    assert f"'logitbank quarantine {place.folder / 's'}' lists them" in text


def test_an_entry_is_explained(place: Place) -> None:
    place.capture()
    (entry,) = place.data("quarantine", "s", "--example", "e3")["entries"]
    assert entry["reason"].endswith("violation in 'bad 3'") and entry["time"] and not entry["is_obsolete"]
    assert place.data("quarantine", "s", "--example", entry["key"][:10])["entries"] == [entry]
    shown = place.run("quarantine", "s", "--example", "e3")
    assert all(word in shown for word in (entry["key"], entry["id"], entry["reason"], entry["time"], "waiting"))
    error = place.run("quarantine", "s", "--example", "nobody", code=2)
    assert error.strip() == "logitbank: --example 'nobody': no example in quarantine has this id or such a key"
    assert "no example in quarantine has a reason" in place.run("quarantine", "s", "--reason", "nothing", code=2)
    assert "not a store" in place.run("quarantine", "nowhere", code=2)


def test_retry_clears_all_some_or_one(place: Place) -> None:
    place.capture()
    first = place.turns()
    (place.folder / "refuses").unlink()
    assert place.capture()["captured"] == 0 and place.turns() == first, "what waits is not asked again"
    assert place.data("quarantine", "s", "--example", "e3", "--retry")["cleared"] == 1
    place.agreed(8)
    assert place.capture()["captured"] == 1 and place.turns() == first + Counter(["bad 3"])
    assert place.data("quarantine", "s", "--reason", "CONTENT policy", "--retry")["cleared"] == 5
    place.agreed(3)
    assert place.capture()["captured"] == 5
    assert place.turns() == first + Counter(f"bad {i}" for i in range(6))
    assert place.data("quarantine", "s", "--retry")["cleared"] == 3
    place.agreed(0)
    outcome = place.capture()
    assert (outcome["captured"], outcome["refused"]) == (0, 3), "what no run can capture returns with its reason"
    place.agreed(3)
    assert place.data("status", "s")["state"] == "complete"


def test_mended_and_removed_lines_wait_no_longer(place: Place) -> None:
    place.capture()
    write_job(place.folder, Path(tokenizer_of(place)), lines(bad=range(4, 6), long=1), unit_size=8)
    outcome = place.capture()
    # Four lines have another text now and are captured; a long one and the line that was no example are gone.
    assert outcome["captured"] == 5 and outcome["refused"] == 3
    place.agreed(3)
    listed = place.data("quarantine", "s")
    assert listed["obsolete"] == 6
    assert "6: obsolete: its line was mended or removed" in place.run("quarantine", "s")
    write_job(place.folder, Path(tokenizer_of(place)), lines(), unit_size=8)
    before = place.turns()
    assert place.capture()["captured"] == 0 and place.turns() == before, "an old line that returns waits again"
    place.agreed(8)
    write_job(place.folder, Path(tokenizer_of(place)), lines(bad=range(0)), unit_size=8)
    place.capture()
    place.agreed(2)
    assert place.data("quarantine", "s")["obsolete"] == 7
    storage = LogitStore.open(str(place.folder / "s")).storage
    report = collect_garbage(storage, grace=0)
    assert sum(name.endswith(".json") for name in report.removed if "quarantine" in name) == 7
    assert len(quarantined_keys(storage)) == 2
    place.agreed(2)


def tokenizer_of(place: Place) -> str:
    text = (place.folder / "capture.toml").read_text()
    return text.split('tokenizer = "')[1].split('"')[0]


def test_older_snapshots_stay_readable_after_a_retry(place: Place, tmp_path: Path) -> None:
    place.capture()
    store = str(place.folder / "s")
    place.data("quarantine", "s", "--retry")
    storage = LogitStore.open(store).storage
    assert latest_snapshot(storage) == 2
    old = LogitStore.open(store, 1).info()
    assert old.quarantine == {"cleared after this snapshot, to be tried again": 9}
    transcode_store(store, str(tmp_path / "copy"), "fast", 1)
    assert LogitStore.open(str(tmp_path / "copy")).info().quarantined == 0
    assert not verify_store(store).problems


def test_verify_looks_at_the_quarantine(place: Place) -> None:
    place.capture()
    store = place.folder / "s"
    one, other, third, *_ = sorted((store / "quarantine").glob("*.json"))
    one.write_bytes(other.read_bytes())
    other.unlink()
    # A sound document, but not the one of the snapshot.
    body = decode_document(third.read_bytes(), "third")
    third.write_bytes(encode_document({**body, "reason": "another"}))
    problems = " ".join(verify_store(str(store)).problems)
    assert f"{one.name}: is not the entry of this example" in problems
    assert f"{other.name}" in problems and f"{third.name}: not the file that the newest snapshot lists" in problems
    assert LogitStore.open(str(store)).info().quarantined == 9, "a damaged entry does not keep a store from opening"
    take_snapshot(LogitStore.open(str(store)).storage)
    assert "not the file" not in " ".join(verify_store(str(store)).problems)


def test_examples_that_were_too_long_are_captured_with_a_higher_limit(place: Place) -> None:
    place.capture()
    assert place.agreed(9)
    change = f"engine.endpoint.base_url={place.address}"
    job = ["capture", str(place.folder / "capture.toml"), "--set", change, "--set", "teacher.max_tokens=2000"]
    outcome = place.data(*job)
    assert (outcome["captured"], outcome["refused"]) == (2, 7)
    assert list(place.agreed(7).values()) == [6, 1]
    assert place.data("quarantine", "s")["obsolete"] == 2
