"""What a report shows of records and sections: a conversation beside what a model extracted, and tables of fields."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from student.tasks import html
from student.tasks.figures import confusion_matrix, grouped_bars
from student.tasks.medical_conversation.record import NOT_PROVIDED, SCALARS, SLOTS, ParsedRecord
from student.tasks.medical_conversation.record_scores import CELLS, FIELDS, record_metrics, record_values
from student.tasks.medical_conversation.sections import HEADERS
from student.tasks.task import Answer, Chart, Panel

# Lines of a conversation that a panel shows; a visit can have hundreds.
SHOWN_LINES = 24


def show_conversation(text: str) -> str:
    """The turns of a conversation, one a paragraph."""
    lines = text.splitlines()
    rest = len(lines) - SHOWN_LINES
    return html.paragraphs("\n".join([*lines[:SHOWN_LINES], *([f"({rest} more turns)"] if rest > 0 else [])]))


def record_panel(parsed: ParsedRecord, truth: Mapping[str, Any] | None, conversation: str) -> Panel:
    """A conversation and the record of an answer. Fields that are not those of the true record are marked as wrong."""
    prompt = show_conversation(conversation)
    if parsed.status == "none":
        return Panel(prompt, "", parsed.problem)
    rows = _rows(parsed.value)
    wrong = frozenset[str]()
    caption = "conforms to the schema" if parsed.conforms else f"does not conform to the schema: {parsed.problem}"
    if truth is not None:
        true = _rows(dict(truth))
        wrong = frozenset(name for name in rows if _values(rows, name) != _values(true, name))
        missing = {
            f"{name} (true)": true.get(name, NOT_PROVIDED)
            for name in [*rows, *true]
            if name in wrong or name not in rows
        }
        rows |= missing
        caption += "; the true record" if not wrong and set(true) <= set(rows) else f"; {len(missing)} fields differ"
    return Panel(prompt, html.definitions(rows, wrong), caption)


def _rows(value: Mapping[str, Any]) -> dict[str, str]:
    """A line of text for each field, and for each prescription."""
    details = value.get("patient_details")
    rows = {name: _plain(details.get(name)) if isinstance(details, Mapping) else "" for name in SCALARS}
    rows |= {name: _plain(value.get(name)) for name in CELLS[len(SCALARS) : -1]}
    prescription = value.get("prescription")
    if not isinstance(prescription, list) or not prescription:
        return {**rows, "prescription": _plain(prescription)}
    entries = [entry if isinstance(entry, Mapping) else {"medication": entry} for entry in prescription]
    return rows | {
        f"prescription {i}": "; ".join(_plain(entry.get(slot)) for slot in SLOTS)
        for i, entry in enumerate(entries, start=1)
    }


def _values(rows: Mapping[str, str], name: str) -> str:
    return rows.get(name, "").lower()


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def section_panel(conversation: str, true: tuple[str, str], given: tuple[str | None, str]) -> Panel:
    """A dialogue, and the header and section that an answer gives for it beside the true ones."""
    rows = {"header": given[0] or "none of the set", "section": given[1]}
    wrong = frozenset({"header"} if given[0] != true[0] else ())
    rows |= {"true header": true[0], "true section": true[1]}
    return Panel(
        show_conversation(conversation), html.definitions(rows, wrong), "right header" if not wrong else "wrong header"
    )


def record_charts(answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
    """F1 of each field by model, what is wrong with the answers, and statistics of the conversations."""
    metrics = {name: record_metrics([answer["scores"] for answer in given]) for name, given in answers.items()}
    labelled = {
        name: {field: values[f"f1_{field}"] for field in FIELDS if f"f1_{field}" in values}
        for name, values in metrics.items()
        if "field_micro_f1" in values
    }
    charts = []
    if labelled:
        names = list(labelled)
        cells = {n: {field: f"{value:.3f}" for field, value in values.items()} for n, values in labelled.items()}
        rows = [[field, *(cells[name].get(field, "no value") for name in names)] for field in FIELDS]
        charts += [
            Chart("F1 of each field", grouped_bars(labelled, "F1")),
            Chart("F1 of each field, in figures", html.table(["field", *names], rows)),
        ]
    shown = ("parse_rate", "schema_conformance", "unsupported_rate", "hallucination_rate", "omission_rate")
    rates = {
        name: {key.replace("_", " "): values[key] for key in shown if key in values} for name, values in metrics.items()
    }
    charts.append(Chart("Form of the answers, hallucination and omission", grouped_bars(rates, "share")))
    return [*charts, _conversation_table(next(iter(answers.values()), []))]


def _conversation_table(answers: Sequence[Answer]) -> Chart:
    """How many of the evaluated conversations say each field, and how long they are."""
    facts = [answer["metadata"] for answer in answers]
    lines = [len(str(each.get("conversation", "")).splitlines()) for each in facts]
    rows = [["conversations", str(len(facts))], ["turns, mean", f"{np.mean(lines) if lines else 0:.1f}"]]
    truths = [record_values(each["record"]) for each in facts if isinstance(each.get("record"), Mapping)]
    for name in CELLS if truths else ():
        share = sum((name,) in each.absent for each in truths) / len(truths)
        rows.append([f"{name}: {NOT_PROVIDED}", f"{share:.1%}"])
    return Chart("The evaluated conversations", html.table(["", ""], rows))


def section_charts(answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
    """The confusion matrix of the headers for each model. Rare headers, and answers without one, are one class."""
    charts = []
    for name, given in answers.items():
        pairs = [(int(each["scores"]["true_header"]), int(each["scores"]["given_header"])) for each in given]
        frequent = [i for i in range(len(HEADERS)) if sum(true == i for true, _ in pairs) >= max(len(pairs) // 25, 1)]
        counts = np.zeros((len(frequent) + 1, len(frequent) + 1), np.int64)
        for true, predicted in pairs:
            row, column = (frequent.index(i) if i in frequent else len(frequent) for i in (true, predicted))
            counts[row, column] += 1
        charts.append(
            Chart(f"Headers given by {name}", confusion_matrix(counts, [*(HEADERS[i] for i in frequent), "others"]))
        )
    return charts
