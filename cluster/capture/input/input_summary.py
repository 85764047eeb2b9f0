"""What becomes of every line of an examples file."""

from collections.abc import Sequence
from dataclasses import dataclass

from teacher_serving.asking.plan import Plan

# Examples that a dry run names, of each kind.
SHOWN = 5
KINDS = UNANSWERED, DUPLICATE, REJECTED = "without a response:", "duplicate:", "rejected"


@dataclass(frozen=True, slots=True)
class InputSummary:
    """Number of lines of an examples file that are not empty, and what becomes of them; the others add up to `lines`.

    captured: examples that the job captures, or that the store has. unanswered: without a response, where the teacher
    writes none. duplicates: equal to an earlier example. rejected: that cannot be captured. invalid: lines that are no
    examples. beyond_limit: after the first `limit` examples.
    """

    lines: int
    captured: int
    unanswered: int
    duplicates: int
    rejected: int
    invalid: int
    beyond_limit: int

    def __str__(self) -> str:
        names = {
            "without a response": self.unanswered,
            "equal to earlier ones": self.duplicates,
            "rejected": self.rejected,
            "no examples": self.invalid,
            "beyond the limit": self.beyond_limit,
        }
        rest = "".join(f", {count:,} {name}" for name, count in names.items() if count)
        return f"of {self.lines:,} lines {self.captured:,} are examples to capture{rest}"


def summarise_input(plan: Plan, invalid: int, beyond_limit: int) -> InputSummary:
    """Count the lines of a plan. invalid: lines that are no examples, which are among the plan's rejected ones."""
    rejected = len(plan.rejected) - invalid
    counts = (plan.count, len(plan.unanswered), len(plan.duplicates), rejected, invalid, beyond_limit)
    return InputSummary(sum(counts), *counts)


def explain_input(plan: Plan) -> list[str]:
    """Lines for a person: the first examples of each kind that are not captured, and why."""
    unanswered = [f"{UNANSWERED} example {name}" for name in plan.unanswered]
    duplicates = [f"{DUPLICATE} example {name} is equal to example {earlier}" for name, earlier in plan.duplicates]
    rejected = [f"{REJECTED} {name}: {reason}" for name, reason in plan.rejected.values()]
    return shorten_notes([*unanswered, *duplicates, *rejected])


def shorten_notes(notes: Sequence[str]) -> list[str]:
    """The first notes of each kind, in the order of the kinds."""
    return [note for kind in KINDS for note in [note for note in notes if note.startswith(kind)][:SHOWN]]


def shown_notes(notes: Sequence[str], summary: InputSummary) -> list[str]:
    """The notes, with the number of those that are not shown."""
    counts = (summary.unanswered, summary.duplicates, summary.rejected + summary.invalid)
    lines: list[str] = []
    for kind, count in zip(KINDS, counts, strict=True):
        shown = [note for note in notes if note.startswith(kind)]
        lines += [*shown, *([f"  and {count - len(shown):,} more"] if shown and count > len(shown) else [])]
    return lines
