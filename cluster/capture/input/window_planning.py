"""Plan one window of an examples file: its responses, those that the store lacks as units, and what is left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.examples.example import Example
from cache.examples.files.jsonl import BadExample, parse_window
from cache.examples.files.windows import Window
from cache.store.segments.keys import Array, is_among, keys_of_hex
from cluster.capture.input.input_summary import InputSummary, explain_input, summarise_input
from cluster.capture.input.job import CaptureJob
from teacher_serving.asking.plan import SCORED_ORIGIN, Plan, PlannedExample, plan_capture, reject_lines

Unit = list[PlannedExample]


@dataclass(frozen=True, slots=True)
class PlannedWindow:
    """What a window contains. Small: the responses themselves are in its units.

    keys: void16 [n], of the responses of the job, in order. example: int64 [n], which example each was planned for.
    unit, place: int32 [n], where it is among the units; unit -1 if the store has it or has set it aside.
    committed, truncated: bool [n]. counted: bool [n], whether nothing of the example is rejected. rejected: as in Plan.
    input: what becomes of the lines. examples: lines that are examples. forgotten: responses that the store must not
    keep. notes: lines for a person, about what is left out.
    first_bad: the first line that is no example. bytes_read: of the input, up to the end of the window.
    """

    keys: Array
    example: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int32]
    place: npt.NDArray[np.int32]
    committed: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    rejected: dict[str, tuple[str, str]]
    input: InputSummary
    examples: int
    forgotten: int
    notes: list[str]
    first_bad: BadExample | None
    bytes_read: int


def plan_window(
    job: CaptureJob, window: Window, first: int = 0, most: int | None = None
) -> tuple[PlannedWindow, list[Unit]]:
    """The plan of a window, and its units.

    first: examples of the job before this window. most: no more examples than these are used, if given.
    """
    parsed = list(parse_window(window))
    bad = [line for line in parsed if isinstance(line, BadExample)]
    everything = [line for line in parsed if isinstance(line, Example)]
    examples = everything[:most]
    plan = plan_capture(examples, **job.planning_facts(), first=first)
    reject_lines(plan, bad)
    forgotten = _leave_out(plan, job.forgotten)
    keys = keys_of_hex(plan.examples)
    committed = np.zeros(len(keys), bool)
    for known in job.committed:
        committed |= is_among(keys, known)
    missing = ~(committed | is_among(keys, job.quarantined))
    items = list(plan.examples.values())
    example = np.array([plan.numbers[key] for key in plan.examples], np.int64)
    units = divide(
        [item for item, is_missing in zip(items, missing, strict=True) if is_missing],
        job.settings.unit_size,
        job.settings.unit_tokens,
    )
    unit, place = np.full(len(keys), -1, np.int32), np.full(len(keys), -1, np.int32)
    unit[missing] = [number for number, each in enumerate(units) for _ in each]
    place[missing] = [number for each in units for number in range(len(each))]
    planned = PlannedWindow(
        keys,
        example,
        unit,
        place,
        committed,
        np.array(["truncated_tokens" in item.tokenized.example.metadata for item in items], bool),
        ~np.isin(example, list(plan.partial)),
        plan.rejected,
        summarise_input(plan, len(bad), len(everything) - len(examples)),
        len(everything),
        forgotten,
        explain_input(plan),
        bad[0] if bad else None,
        window.bytes_read,
    )
    return planned, units


def divide(items: Sequence[PlannedExample], size: int, tokens: int) -> list[Unit]:
    """Divide responses into units, in their order.

    A unit ends when it has `size` responses, or prompts of `tokens` tokens. All responses to one example are in one
    unit, because which of them are kept depends on the others.
    """
    units: list[Unit] = []
    count = 0
    for item in items:
        is_full = bool(units) and (len(units[-1]) >= size or count >= tokens)
        if not units or (is_full and not have_same_example(units[-1][-1], item)):
            units.append([])
            count = 0
        units[-1].append(item)
        count += len(item.teacher_prompt)
    return units


def have_same_example(a: PlannedExample, b: PlannedExample) -> bool:
    """Whether both are responses of the teacher to the same example."""
    return a.tokenized.example is b.tokenized.example or (
        SCORED_ORIGIN not in (a.tokenized.origin, b.tokenized.origin)
        and a.tokenized.example.identity == b.tokenized.example.identity
    )


def _leave_out(plan: Plan, forgotten: Array) -> int:
    """Take the responses out of the plan that the store must not keep. Returns their number."""
    names = [*plan.examples, *plan.rejected]
    gone = [name for name, known in zip(names, is_among(keys_of_hex(names), forgotten), strict=True) if known]
    for name in gone:
        plan.examples.pop(name, None)
        plan.rejected.pop(name, None)
    return len(gone)
