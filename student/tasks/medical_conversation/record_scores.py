"""Scores of an extracted record against the true one and the conversation, and the metrics over many records.

A value counts as found if it is equal after normalisation. Lists are sets. A slot of a prescription belongs to its
medication: the right dosage at the wrong medication is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from student.tasks.medical_conversation.record import LISTS, NOT_PROVIDED, SCALARS, SLOTS, ParsedRecord
from student.tasks.text_scores import f1, normalise, words_of

# The leaves of the schema. Micro F1 counts all their values together, macro F1 is the mean of the F1 of each.
FIELDS = (*SCALARS, *LISTS, *SLOTS)
# The whole fields that can be "NOT PROVIDED".
CELLS = (*SCALARS, *LISTS, "prescription")
# Words of a conversation that say a gender.
_GENDER_WORDS = {
    "male": {"male", "man", "gentleman", "mr", "sir", "he", "his", "him", "boy"},
    "female": {"female", "woman", "lady", "mrs", "ms", "miss", "maam", "she", "her", "girl"},
}
_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

Item = tuple[str, ...]
ABSENT = normalise(NOT_PROVIDED)


@dataclass(frozen=True, slots=True)
class RecordValues:
    """The values of a record, normalised. items: by field; of a slot with the medication first, the value last.

    absent: cells that say "NOT PROVIDED": fields, and slots with their medication.
    """

    items: Mapping[str, frozenset[Item]]
    absent: frozenset[Item]


def record_values(value: Mapping[str, Any]) -> RecordValues:
    """The values of an object that may not have the form of the schema. What has another type is no value."""
    items: dict[str, set[Item]] = {name: set() for name in FIELDS}
    absent: set[Item] = set()
    details = value.get("patient_details")
    for name in SCALARS:
        scalar = details.get(name) if isinstance(details, Mapping) else None
        _add(items[name], absent, scalar, (name,), ())
    for name in LISTS:
        for each in _as_list(value.get(name)):
            _add(items[name], absent, each, (name,), ())
    for entry in _as_list(value.get("prescription")):
        if isinstance(entry, Mapping):
            medication = _text(entry.get("medication"))
            given = {_text(entry.get(slot)) for slot in SLOTS} - {""}
            if given <= {ABSENT}:
                absent |= {("prescription",)} if given else set()
                continue
            # A slot without a medication is a value too, and may be invented.
            _add(items["medication"], absent, medication or NOT_PROVIDED, ("medication",), ())
            for slot in SLOTS[1:]:
                _add(items[slot], absent, entry.get(slot), (slot, medication or ABSENT), (medication or ABSENT,))
        elif _text(entry) == ABSENT:
            absent.add(("prescription",))
    return RecordValues({name: frozenset(found) for name, found in items.items()}, frozenset(absent))


def _add(items: set[Item], absent: set[Item], value: Any, cell: Item, prefix: Item) -> None:
    text = _text(value)
    if text == ABSENT:
        absent.add(cell)
    elif text:
        items.add((*prefix, text))


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    return normalise(str(int(value)) if isinstance(value, float) and value.is_integer() else str(value))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def score_record(parsed: ParsedRecord, truth: Mapping[str, Any] | None, conversation: str) -> dict[str, float]:
    """Counts for `record_metrics`. truth: the true record, None if it is not known; its counts are then 0."""
    found = record_values(parsed.value)
    words = _cached_words(conversation)
    predicted = [(name, item) for name in FIELDS for item in found.items[name]]
    unsupported = [(name, item) for name, item in predicted if not is_supported(name, item[-1], words)]
    scores: dict[str, float] = {
        "parsed": float(parsed.status != "none"),
        "strict": float(parsed.status == "strict"),
        "conforms": float(parsed.conforms),
        "values": len(predicted),
        "unsupported": len(unsupported),
        "absent_cells": sum((cell,) in found.absent for cell in CELLS) if parsed.status != "none" else 0,
        "labelled": float(truth is not None),
    }
    true = record_values(truth or {})
    for name in FIELDS:
        counts = _set_counts(found.items[name], true.items[name]) if truth is not None else (0, 0, 0)
        scores |= dict(zip((f"{name}_tp", f"{name}_fp", f"{name}_fn"), map(float, counts), strict=True))
    counts = _set_counts(found.absent, true.absent) if truth is not None else (0, 0, 0)
    scores |= dict(zip(("absent_tp", "absent_fp", "absent_fn"), map(float, counts), strict=True))
    scores["labelled_values"] = float(len(predicted)) if truth is not None else 0.0
    scores["hallucinated"] = (
        float(sum(item not in true.items[name] for name, item in unsupported)) if truth is not None else 0.0
    )
    scores["omitted"] = float(sum(_is_omitted(name, item, found) for name in FIELDS for item in true.items[name]))
    scores["true_values"] = float(sum(map(len, true.items.values())))
    scores["exact"] = float(truth is not None and found == true)
    return scores


def _is_omitted(name: str, item: Item, found: RecordValues) -> bool:
    """Whether the answer has nothing where a true value is. A wrong value of a single field is no omission."""
    if name in SCALARS:
        return not found.items[name]
    if name in SLOTS[1:]:
        return not any(other[0] == item[0] for other in found.items[name])
    return item not in found.items[name]


def is_supported(name: str, value: str, words: frozenset[str]) -> bool:
    """Whether every word of a normalised value is in the conversation; a gender or an age also in other words."""
    if name == "gender" and value in _GENDER_WORDS:
        return bool(_GENDER_WORDS[value] & words)
    if name == "age" and value.isdecimal() and set(spelled(int(value)).split()) <= words:
        return True
    return set(value.split()) <= words


def spelled(number: int) -> str:
    """A number from 0 to 119 in English words, without "one" and "and" at a hundred; others in digits."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        return f"{_TENS[number // 10 - 2]} {_ONES[number % 10] if number % 10 else ''}".strip()
    if number < 120:
        return f"hundred {spelled(number - 100) if number > 100 else ''}".strip()
    return str(number)


@lru_cache(maxsize=512)
def _cached_words(conversation: str) -> frozenset[str]:
    return words_of(conversation)


def record_metrics(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics over all answers. Those that need the true record are left out if no example has one.

    Macro F1 is over the fields that have a true or a given value; a field without any has no F1.
    """
    total = {name: sum(score[name] for score in scores) for name in scores[0]}
    count = len(scores)
    metrics = {
        "parse_rate": total["parsed"] / count,
        "strict_parse_rate": total["strict"] / count,
        "schema_conformance": total["conforms"] / count,
        "unsupported_rate": _ratio(total["unsupported"], total["values"]),
        "not_provided_share": total["absent_cells"] / (count * len(CELLS)),
    }
    if not total["labelled"]:
        return metrics
    counts = {name: [total[f"{name}_{kind}"] for kind in ("tp", "fp", "fn")] for name in FIELDS}
    by_field = {name: f1(*count) for name, count in counts.items() if any(count)}
    slots = {"prescription_slot_f1": _micro(total, SLOTS)} if set(SLOTS) & set(by_field) else {}
    return {
        **metrics,
        "record_exact_match": total["exact"] / total["labelled"],
        "field_micro_f1": _micro(total, FIELDS),
        "field_macro_f1": _ratio(sum(by_field.values()), len(by_field)),
        **slots,
        "not_provided_precision": _ratio(total["absent_tp"], total["absent_tp"] + total["absent_fp"]),
        "not_provided_recall": _ratio(total["absent_tp"], total["absent_tp"] + total["absent_fn"]),
        "hallucination_rate": _ratio(total["hallucinated"], total["labelled_values"]),
        "false_value_rate": _ratio(sum(total[f"{name}_fp"] for name in FIELDS), total["labelled_values"]),
        "omission_rate": _ratio(total["omitted"], total["true_values"]),
        **{f"f1_{name}": value for name, value in by_field.items()},
    }


def _micro(total: Mapping[str, float], fields: Sequence[str]) -> float:
    return f1(*(sum(total[f"{name}_{kind}"] for name in fields) for kind in ("tp", "fp", "fn")))


def _set_counts(found: frozenset[Item], true: frozenset[Item]) -> tuple[int, int, int]:
    """True positives, false positives, false negatives."""
    return len(found & true), len(found - true), len(true - found)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
