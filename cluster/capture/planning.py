"""A capture job with all of its windows planned in this process, and what a dry run says about it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from cache.examples.example import Example
from cache.examples.files.jsonl import BadExample, bad_line, no_examples, parse_window
from cache.examples.files.windows import Window, input_bytes, read_windows
from cache.progress import Progress, no_progress
from cluster.capture.input.input_summary import shown_notes
from cluster.capture.input.job import CaptureJob, open_job
from cluster.capture.input.planned_input import PlannedInput
from cluster.capture.input.tries import Tries
from cluster.capture.input.unit_stream import LocalPlanner, UnitStream
from cluster.capture.input.window_planning import PlannedWindow
from cluster.capture.input.work import Work
from cluster.capture.settings import CaptureSettings

# Lines that are planned together. A unit is a part of a window.
WINDOW_LINES = 2048
FORGOTTEN = "are forgotten in this store ('logitbank forget') and are left out"


def open_windows(settings: CaptureSettings) -> tuple[list[Window], Iterator[Window]]:
    """The first two windows of a job's examples, and the others. Cheap: before the teacher is looked at.

    Raises InputError for files that cannot be read, and for a small input without an example.
    """
    windows = read_windows(settings.examples, WINDOW_LINES, settings.fields)
    first = list(islice(windows, 2))
    if len(first) < 2:
        lines = list(parse_window(first[0])) if first else []
        if not any(isinstance(line, Example) for line in lines):
            bad = next((line for line in lines if isinstance(line, BadExample)), None)
            raise bad_line(settings.examples, bad) if bad else no_examples(settings.examples)
    return first, windows


@dataclass(frozen=True)
class CapturePlan:
    """A job compared with the store as it is now. works: units of what the store lacks."""

    job: CaptureJob
    input: PlannedInput
    works: list[Work] = field(default_factory=list)


def plan_job(settings: CaptureSettings, progress: Progress = no_progress) -> CapturePlan:
    """Plan a whole capture job, with all of its units in memory. Loads no weights and writes nothing.

    Raises InputError if the settings or examples are wrong, SpecMismatchError if the store has another spec.
    """
    job, stream = open_stream(settings, progress)
    works = []
    while (work := stream.take()) is not None:
        works.append(work)
    return CapturePlan(job, stream.input, works)


def open_stream(settings: CaptureSettings, progress: Progress = no_progress) -> tuple[CaptureJob, UnitStream]:
    """A capture job, and the units that its store lacks, planned window by window in this process.

    Raises as plan_job.
    """
    first, others = open_windows(settings)
    job = open_job(settings)
    total = input_bytes(settings.examples)

    def show(window: PlannedWindow) -> None:
        if len(first) > 1:
            progress(window.bytes_read, total)

    return job, UnitStream(job, LocalPlanner(job, chain(first, others)), show, Tries(job.storage))


def preview_job(
    settings: CaptureSettings, progress: Progress = no_progress, look: Callable[[Work], None] | None = None
) -> str:
    """Describe what a run of the job would do. Starts no engine, writes nothing, and keeps no unit in memory.

    look: is shown each unit that the store lacks.
    """
    job, stream = open_stream(settings, progress)
    units = 0
    while (work := stream.take()) is not None:
        units += 1
        if look is not None:
            look(work)
    spec, known = job.description.spec, stream.input
    lines = [
        f"fingerprint {spec.fingerprint}",
        f"targets {spec.targets}",
        str(known.summary),
        f"{known.planned:,} responses ({known.truncated:,} truncated), {known.planned - known.missing:,} of them done; "
        f"{known.missing:,} to capture in {units:,} units",
    ]
    if known.forgotten:
        lines.append(f"{known.forgotten:,} more responses {FORGOTTEN}")
    if known.others:
        lines.append(
            f"{known.others:,} more records of the store are not of this job: of other jobs, or of lines that were "
            "changed or removed; training reads them too"
        )
    return "\n".join([*lines, *shown_notes(known.notes, known.summary)])
