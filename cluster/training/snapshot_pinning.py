"""Pin snapshots: a run keeps reading the same examples while its stores grow."""

from typing import Any, TypeVar

from cluster.runtime.outputs import JOB, read_json
from student.data.settings import DataSettings, PinnedStore
from student.training.planning.stores import OpenStores
from student.training.run_files import steps_done
from student.training.settings import HeldoutSettings, TrainSettings

Pinnable = TypeVar("Pinnable", DataSettings, HeldoutSettings)


def pin_snapshots(settings: TrainSettings, stores: OpenStores) -> TrainSettings:
    """The same job with a number for every snapshot: as requested, as when the run started, or the newest."""
    job = settings.output / JOB
    earlier = read_json(job) if job.exists() and steps_done(settings.output) else {}
    updates: dict[str, Any] = {"data": _pin(settings.data, stores, earlier.get("data") or {})}
    if settings.heldout is not None:
        updates["heldout"] = _pin(settings.heldout, stores, earlier.get("heldout") or {})
    return settings.model_copy(update=updates)


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
