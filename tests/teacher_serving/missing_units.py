"""The units of a plan that a store lacks, as a capture job divides them."""

from cache.storage.base import Storage
from cache.store.commits import read_spec
from cache.store.quarantine.entries import quarantined_keys
from cache.store.segments.columns import hex_rows
from cache.store.snapshot_reading import current_index
from cluster.capture.input.window_planning import divide
from teacher_serving.asking.plan import Plan, PlannedExample


def missing_units(plan: Plan, storage: Storage, unit_size: int) -> list[list[PlannedExample]]:
    """Units of what is neither captured nor in quarantine."""
    present = set(hex_rows(current_index(storage, read_spec(storage).fingerprint).key)) | set(quarantined_keys(storage))
    return divide([item for key, item in plan.examples.items() if key not in present], unit_size, 1 << 30)
