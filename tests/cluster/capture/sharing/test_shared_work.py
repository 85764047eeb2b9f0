"""Drivers on one store share the windows of a job, and take over from those that are gone."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale.stand_in_engine import StandInSettings, StandInTeacher
from cache.examples.files.windows import read_windows
from cache.json_documents import encode_document
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.snapshot_reading import current_index
from cache.store.unit_writer import write_unit
from cluster.capture.input.job import CaptureJob, open_job
from cluster.capture.input.tries import Tries
from cluster.capture.input.unit_stream import LocalPlanner, UnitStream
from cluster.capture.input.work import Work
from cluster.capture.run import CaptureRun
from cluster.capture.settings import CaptureSettings
from cluster.capture.sharing import drivers, shared_work
from cluster.capture.sharing.drivers import Presence, drivers_of, is_alive, remove_gone
from cluster.capture.sharing.leases import Leases
from cluster.capture.sharing.leftovers import remove_leftovers
from cluster.capture.sharing.shared_work import SharedWork
from teacher_serving.capture.unit import ask_teacher
from teacher_serving.engines.process import available_threads


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "store")


def elsewhere(storage: LocalStorage, name: str, **changes: Any) -> None:
    """A driver on this machine, with other facts about it."""
    presence = Presence(storage, lambda: {"answered": 3})
    presence.name = name
    presence.beat()
    [file] = (storage.root / "drivers" / name).iterdir()
    body = json.loads(file.read_text())
    known = body.get("body", body)
    file.unlink()
    storage.create(f"drivers/{name}/{file.name}", encode_document({**{k: known[k] for k in drivers.FIELDS}, **changes}))


def test_a_driver_is_seen_as_long_as_it_works(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    presence = Presence(storage, lambda: {"answered": 7})
    assert drivers_of(storage) == []
    monkeypatch.setattr(drivers, "BEAT_SECONDS", 0.0)
    for _ in range(3):
        presence.beat()
    [seen] = drivers_of(storage)
    assert (seen.name, seen.pid, seen.facts) == (presence.name, os.getpid(), {"answered": 7})
    assert len(storage.names(f"drivers/{presence.name}")) == 1, "one file a driver"
    presence.end()
    assert drivers_of(storage) == [] and not is_alive(storage, presence.name)


def test_a_killed_driver_is_gone_at_once_here_and_after_a_while_elsewhere(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(storage, "killed", process="1:1")
    elsewhere(storage, "far", machine="another", process="1:1")
    assert [driver.name for driver in drivers_of(storage)] == ["far"]
    remove_gone(storage)
    assert storage.names("drivers") == ["far"]
    monkeypatch.setattr(drivers, "EXPIRY_SECONDS", -1.0)
    assert drivers_of(storage) == []


def test_a_lease_has_one_owner_until_that_is_done_or_gone(storage: LocalStorage) -> None:
    for name in ("a", "b", "killed"):
        elsewhere(storage, name)
    a, b, killed = (Leases(storage, name) for name in ("a", "b", "killed"))
    assert a.claim("w") and a.claim("w") and not b.claim("w") and b.claim("v")
    a.release("w")
    assert b.claim("w") and not a.claim("w")
    assert killed.claim("x") and not a.claim("x")
    storage.remove_folder("drivers/killed")
    assert a.claim("x") and not b.claim("x")
    killed.release("x")  # one that only slept does not take it back
    assert not b.claim("x")
    for leases in (a, b):
        leases.release_all()
    assert not list((storage.root / "leases").rglob("*.json"))


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path) -> CaptureJob:
    lines = [{"prompt": f"say {i}", "response": "one two"} for i in range(60)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = {"examples": tmp_path / "examples.jsonl", "store": str(tmp_path / "store"), "unit_size": 4}
    fields |= {"teacher": {"model": str(tiny_model), "max_tokens": 60}, "engine": {"kind": "transformers"}}
    job = open_job(CaptureSettings.model_validate({**fields, "targets": {"k": 4}}))
    create_store(job.storage, job.description.spec)
    return job


class Sharer:
    """A driver that captures unit by unit, in this process."""

    def __init__(self, job: CaptureJob, name: str) -> None:
        self.job, self.captured = job, list[str]()
        self._teacher = StandInTeacher(job.description, StandInSettings())
        elsewhere(LocalStorage(Path(job.settings.store)), name)
        planner = LocalPlanner(job, read_windows(job.settings.examples, 12))
        self.stream = UnitStream(job, planner, lambda window: None, Tries(job.storage))
        spec = job.description.spec
        self.work = SharedWork(
            self.stream,
            Leases(job.storage, name),
            lambda keys: current_index(job.storage, spec.fingerprint).contains(keys),
        )

    def take(self) -> Work | None:
        return self.work.take()

    def capture(self, work: Work) -> None:
        unit = [work.units[work.number][place] for place in work.places]
        spec = self.job.description.spec
        answers = ask_teacher(self._teacher, unit, self.job.description.tokenizer, spec)
        write_unit(self.job.storage, spec, answers.records)
        self.captured += [record.key for record in answers.records]
        self.work.finished(work)


def test_two_drivers_capture_every_example_once(job: CaptureJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "LOOK_SECONDS", 0.0)
    a, b = Sharer(job, "a"), Sharer(job, "b")
    for _ in range(200):
        for sharer in (a, b):
            if (work := sharer.take()) is not None:
                sharer.capture(work)
    assert a.work.is_exhausted and b.work.is_exhausted and not a.work.others
    assert len(a.captured + b.captured) == len({*a.captured, *b.captured}) == 60
    assert min(len(a.captured), len(b.captured)) > 0 and a.work.elsewhere == len(b.captured)
    assert not list(Path(job.settings.store).glob("leases/*/*.json"))


def test_what_a_killed_driver_had_taken_is_captured_by_another(
    job: CaptureJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_work, "LOOK_SECONDS", 0.0)
    a, b = Sharer(job, "a"), Sharer(job, "b")
    first = a.take()
    assert first is not None
    a.capture(first)
    a.take()  # in hand when it is killed
    for _ in range(100):
        if (work := b.take()) is not None:
            b.capture(work)
    assert b.work.others == 12 and not b.work.is_exhausted, "it waits for the driver that has the first window"
    job.storage.remove_folder("drivers/a")
    while not b.work.is_exhausted:
        if (work := b.take()) is not None:
            b.capture(work)
    assert len(b.captured) == 56 and len({*a.captured, *b.captured}) == 60


def test_no_more_engines_are_started_than_there_are_units(job: CaptureJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a job that asks for more cores than its session of Ray has."""
    settings = job.settings.model_copy(update={"actors": 8, "unit_size": 30})
    run = CaptureRun(replace(job, settings=settings))
    run.plan(LocalPlanner(replace(job, settings=settings), read_windows(settings.examples, 2048)))
    cores: list[int] = []
    monkeypatch.setattr("cluster.capture.run.cluster_has_gpus", lambda: False)
    monkeypatch.setattr("cluster.capture.run.require_gpus", lambda _: None)
    monkeypatch.setattr("cluster.capture.run.require_cpus", cores.append)
    monkeypatch.setattr("cluster.capture.run.start_worker", lambda *_: "worker")
    monkeypatch.setattr("cluster.capture.run.wait_ready", lambda workers, _: cores.append(len(workers)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.capture()
    assert run.known_units == 2 and cores[1] == 2 and cores[0] <= max(2, available_threads())


def test_leftovers_of_drivers_that_are_gone_are_removed(storage: LocalStorage) -> None:
    """As long as any driver works, the leases stay, also those of others: it takes them over itself."""
    here = Presence(storage, dict)
    here.beat()
    elsewhere(storage, "gone", process="1:1")
    assert Leases(storage, "gone").claim("window-a") and Leases(storage, here.name).claim("window-b")
    assert remove_leftovers(storage, dry_run=True) == ["drivers/gone"] and storage.names("drivers/gone")
    assert remove_leftovers(storage) == ["drivers/gone"] and not storage.names("drivers/gone")
    assert storage.names("leases") == ["window-a", "window-b"]
    here.end()
    assert remove_leftovers(storage) == ["leases/window-a", "leases/window-b"]
    assert storage.names("leases") == [] == remove_leftovers(storage)
