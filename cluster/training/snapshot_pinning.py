"""Pin snapshots: a run keeps reading the same examples while its stores grow."""

from typing import Any, TypeVar

from cache.errors import InputError
from cluster.runtime.outputs import JOB, read_json
from student.data.settings import DataSettings, PinnedStore
from student.training.planning.stores import OpenStores
from student.training.run_files import FOLLOWED, read_followed, steps_done
from student.training.settings import HeldoutSettings, TrainSettings

Pinnable = TypeVar("Pinnable", DataSettings, HeldoutSettings)


def pin_snapshots(settings: TrainSettings, stores: OpenStores) -> TrainSettings:
    """The same job with a number for every snapshot: as requested, as when the run started, or the newest."""
    job = settings.output / JOB
    earlier = read_json(job) if job.exists() and steps_done(settings.output) else {}
    data = _followed(settings) if settings.data.follow is not None else settings.data
    updates: dict[str, Any] = {"data": _pin(data, stores, earlier.get("data") or {})}
    if settings.heldout is not None:
        updates["heldout"] = _pin(settings.heldout, stores, earlier.get("heldout") or {})
    return settings.model_copy(update=updates)


def _followed(settings: TrainSettings) -> DataSettings:
    """The data of a run that follows its store, at the snapshot with which its record begins.

    The record may be of an earlier start of this run, or put there to repeat another one. Raises InputError if it is of
    another store, of another distance, or begins with another snapshot than the job names.
    """
    data, record = settings.data, read_followed(settings.output)
    if record is None:
        return data
    first = record["stretches"][0]["snapshot"]
    for name, noted, wanted in (
        ("data.store", record["store"], data.store),
        ("data.follow", record["follow"], data.follow),
        ("data.snapshot", first, data.snapshot or first),
    ):
        if noted != wanted:
            raise InputError(
                f"{settings.output / FOLLOWED}: is the record of a run with {name} = {noted!r}, and the job has "
                f"{wanted!r}; remove the file, or give another output"
            )
    return data.model_copy(update={"snapshot": first})


def _pin(data: Pinnable, stores: OpenStores, earlier: dict[str, Any]) -> Pinnable:
    updates: dict[str, Any] = {}
    if data.store is not None and data.snapshot is None:
        updates["snapshot"] = stores.open(data.store, earlier.get("snapshot")).snapshot
    for name in ("union", "mixture", "teachers"):
        items: tuple[PinnedStore, ...] = getattr(data, name, ())
        earlier_items = earlier.get(name) or [{}] * len(items)
        updates[name] = tuple(
            item
            if item.snapshot is not None
            else item.model_copy(update={"snapshot": stores.open(item.store, old.get("snapshot")).snapshot})
            for item, old in zip(items, earlier_items, strict=False)
        )
    return data.model_copy(update={name: value for name, value in updates.items() if value})
