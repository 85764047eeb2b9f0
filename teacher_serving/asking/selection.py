"""Compare the labels of responses with the true ones, and select samples. Knows nothing of tokens or prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cache.answers.labels import labels_match
from cache.answers.parsing import ParsedAnswer

LabelMatch = Literal["agrees", "disagrees", "unparsed", "no_truth"]
KeepPolicy = Literal["all", "agreeing", "rationalize"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Indices of the samples of an example to keep, and whether to ask the teacher again with the label as a hint."""

    kept: tuple[int, ...]
    needs_hint: bool


def compare_label(parsed: ParsedAnswer, truth: str) -> LabelMatch:
    """Compare the parsed label with the true one.

    An empty truth gives "no_truth" for every answer. An answer without a rationale is compared as well.
    """
    if not truth.strip():
        return "no_truth"
    if parsed.status == "no_label":
        return "unparsed"
    return "agrees" if labels_match(parsed.label, truth) else "disagrees"


def select_samples(matches: Sequence[LabelMatch], keep: KeepPolicy) -> Selection:
    """Select the samples of one example to keep.

    "all": every sample. "agreeing": samples whose label agrees, or all if the example has no label. "rationalize": like
    "agreeing", but if no sample is kept, the teacher is asked again with a hint (STaR,
    https://arxiv.org/abs/2203.14465).
    """
    if keep == "all":
        return Selection(tuple(range(len(matches))), False)
    kept = tuple(i for i, match in enumerate(matches) if match in ("agrees", "no_truth"))
    return Selection(kept, keep == "rationalize" and bool(matches) and not kept)
