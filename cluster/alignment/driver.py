"""Give out the units of an alignment, in this process or as tasks of Ray."""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayTaskError

from cache.examples.tokenizers import tokenizer_files
from cache.parts.layout import Profile
from cache.progress import Progress, no_progress
from cache.rendering.prompt_form import PromptForm, require_template_variables, today, writes_date
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.open import open_storage
from cache.store.claims.tokenizer_files import claim_tokenizer
from cache.store.commits import SPEC, committed_units, create_store, read_spec, unit_name
from cache.store.copying.copied_units import copy_quarantine, require_other_store, units_of_copy
from cache.store.fill import require_profile, require_same_profile
from cache.store.snapshot_reading import latest_snapshot
from cache.store.snapshots import take_snapshot
from cluster.alignment.units import AlignmentJob, align_unit
from cluster.runtime.ray_session import is_embedded, own_error, ray_session
from cluster.runtime.shared_object import share, shared_object
from student.tokenizers.alignment import Alignment
from student.tokenizers.cross_tokenizer_store import AlignedShares

Unit = npt.NDArray[np.int64]
# Units that each worker has in hand or waiting.
AHEAD = 2
# Seconds of work for which more processes are not worth their start.
SHORT_S = 60.0


@dataclass(frozen=True, slots=True)
class AlignmentResult:
    """examples: of the target. aligned: of them, those that this run has aligned. shares: of the tokens of these."""

    examples: int
    aligned: int
    shares: AlignedShares


def run_alignment(
    source: str,
    target: str,
    student: Any,
    form: PromptForm,
    snapshot: int | None = None,
    profile: Profile = "compact",
    workers: int | None = 1,
    address: str | None = None,
    progress: Progress = no_progress,
) -> AlignmentResult:
    """Write a snapshot (default: the newest) of the store at `source` to `target`, in the tokens of `student`.

    student: a fast tokenizer, with the template of the student. workers: units that are aligned at a time; 1 is this
    process, more are tasks of Ray at `address`; None: this process, or one for each core if that would take it longer
    than SHORT_S. progress: of examples.
    Examples that are forgotten in the source are left out. Units that the target contains already are skipped, so a
    rerun continues. At the end a snapshot is taken.
    Raises a LogitbankError, before the target exists, if the two tokenizers or the targets cannot be aligned.
    """
    require_profile(profile)
    require_other_store(source, target)
    require_template_variables(student, form.chat_template_kwargs, "chat_template_kwargs")
    form = replace(form, template_date=_template_date(open_storage(target), student))
    # All processes read one snapshot; without any, opening the store says so.
    pinned = snapshot if snapshot is not None else latest_snapshot(open_storage(source)) or None
    job = AlignmentJob(source, pinned, target, student, form, profile)
    spec = job.aligner.spec
    with ExitStack() as joined:
        if workers != 1 and (workers is not None or not is_embedded(address)):
            # Before the target exists: a head that does not answer leaves nothing behind.
            joined.enter_context(ray_session(address, workers or 1))
        return _write(job, spec, workers, address, progress)


def _write(
    job: AlignmentJob,
    spec: StoreSpec,
    workers: int | None,
    address: str | None,
    progress: Progress,
) -> AlignmentResult:
    """Write the units that the target lacks, and take a snapshot."""
    store, storage = job.store, job.storage
    create_store(storage, spec)
    claim_tokenizer(storage, spec, tokenizer_files(job.student))
    units = units_of_copy(store, storage)
    present = set(committed_units(storage))
    names = [unit_name([store.key(int(i)) for i in unit]) for unit in units]
    require_same_profile(storage, present & set(names), job.profile)
    missing = [unit for name, unit in zip(names, units, strict=True) if name not in present]
    total = sum(map(len, units))
    done = before = total - sum(map(len, missing))
    counts = np.zeros(len(Alignment), np.int64)
    for unit, found in _align(job, missing, workers, address):
        counts += found
        done += len(unit)
        progress(done, total)
    copy_quarantine(store, storage)
    take_snapshot(storage)
    return AlignmentResult(total, total - before, AlignedShares.of(counts))


def _template_date(storage: Storage, student: Any) -> str:
    """The day that the template writes: of the run that began the target, also where another day continues it."""
    if storage.size(SPEC) is not None:
        return read_spec(storage).template_date
    return today() if writes_date(student) else ""


def _align(
    job: AlignmentJob, units: Sequence[Unit], workers: int | None, address: str | None
) -> Iterator[tuple[Unit, npt.NDArray[np.int64]]]:
    """Units with their counts, as they are done. The first one is aligned here: its rows give a store its codebook."""
    started = time.monotonic()
    for unit in units[:1]:
        yield unit, align_unit(job, unit)
    if workers is None:
        is_long = (time.monotonic() - started) * len(units) > SHORT_S or not is_embedded(address)
        workers = (os.cpu_count() or 1) if is_long else 1
    if workers > 1 and len(units) > 1:
        yield from _align_with_ray(job, units[1:], workers, address)
        return
    for unit in units[1:]:
        yield unit, align_unit(job, unit)


def _align_with_ray(
    job: AlignmentJob, units: Sequence[Unit], workers: int, address: str | None
) -> Iterator[tuple[Unit, npt.NDArray[np.int64]]]:
    with ray_session(address, workers):
        shared = share(job)
        align = ray.remote(_align_shared).options(num_cpus=1, scheduling_strategy="SPREAD")
        waiting, running = deque(units), dict[Any, Unit]()
        while waiting or running:
            while waiting and len(running) < workers * AHEAD:
                unit = waiting.popleft()
                running[align.remote(shared, unit)] = unit
            (finished, *_), _ = ray.wait(list(running))
            try:
                counts = ray.get(finished)
            except RayTaskError as error:
                raise own_error(error) from error
            yield running.pop(finished), counts


def _align_shared(job: list[Any], unit: Unit) -> npt.NDArray[np.int64]:
    """A task of Ray."""
    return align_unit(shared_object(job), unit)
