"""What becomes of every line of an examples file."""

from collections.abc import Sequence
from dataclasses import dataclass

from teacher_serving.asking.plan import Plan

# Examples that a dry run names, of each kind.
SHOWN = 5


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
    unanswered = [f"without a response: example {name}" for name in plan.unanswered]
    duplicates = [f"duplicate: example {name} is equal to example {earlier}" for name, earlier in plan.duplicates]
    rejected = [f"rejected {name}: {reason}" for name, reason in plan.rejected.values()]
    return [*_first(unanswered), *_first(duplicates), *_first(rejected)]


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"  and {more:,} more"] if more > 0 else [])]
