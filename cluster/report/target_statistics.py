"""Statistics of stored targets for the charts of a report."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache.rows.sparse_targets import SparseTargets
from cache.store.logit_store import LogitStore

MAX_EXAMPLES = 2000


def sample_targets(store: LogitStore) -> list[SparseTargets]:
    """Targets of at most about MAX_EXAMPLES examples, evenly spaced in the store."""
    step = max(1, len(store) // MAX_EXAMPLES)
    return [window.targets for window in store.read(range(0, len(store), step))]


def entropies(targets: Sequence[SparseTargets]) -> npt.NDArray[np.float64]:
    """Entropy of the teacher at every position that has a target, in nats; float64 [rows].

    Where the store does not contain the entropy, the tail counts as one outcome. The result is then a lower bound.
    """
    return np.concatenate([_entropies(item) for item in targets])


def mass_by_k(targets: Sequence[SparseTargets], k: int) -> dict[int, float]:
    """Mean probability of the k most probable tokens, for k and smaller powers of two."""
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) if size < k] + [k]
    return {size: float(np.concatenate([t.retained_mass(size) for t in targets]).mean()) for size in sizes}


def bytes_by_array(store: LogitStore) -> dict[str, float]:
    """Bytes per token with a target, for each array and for all the metadata, largest first."""
    info = store.info()
    totals = store.bytes_by_array()
    totals["metadata"] = info.part_bytes - sum(totals.values())
    return {name: total / info.rows for name, total in sorted(totals.items(), key=lambda item: -item[1])}


def _entropies(targets: SparseTargets) -> npt.NDArray[np.float64]:
    if targets.entropy is not None:
        return targets.entropy[targets.counts > 0].astype(np.float64)
    log_p = targets.logprobs.astype(np.float64)
    head = np.bincount(targets.row_of_entry, weights=-np.exp(log_p) * log_p, minlength=len(targets))
    log_tail = targets.log_tail.astype(np.float64)
    tail = np.where(np.isfinite(log_tail), -np.exp(log_tail) * np.where(np.isfinite(log_tail), log_tail, 0), 0)
    return np.asarray((head + tail)[targets.counts > 0])
