"""What the report shows: a rationale beside its equation and value, and curves over shares of the data."""

from collections.abc import Callable, Mapping, Sequence

from cache.examples.example import Example
from student.tasks.figures import curves
from student.tasks.html import definitions, escape, paragraphs
from student.tasks.step_by_step.examples import ITEM, TASK
from student.tasks.step_by_step.items import is_right, value_of
from student.tasks.step_by_step.judging import count_steps, label_of, rationale_of
from student.tasks.task import Answer, Chart, Panel

MAX_ITEMS = 12


def panel(example: Example, text: str) -> Panel:
    """The question, and what the answer says."""
    facts, wrong, caption = describe(example, text)
    asked = {"predict": "label", "explain": "rationale", "question": "rationale and label"}[example.metadata[TASK]]
    prompt = f"{paragraphs(str(example.metadata['input']))}<p><b>{asked}</b></p>"
    return Panel(prompt, definitions(facts, wrong), caption)


def describe(example: Example, text: str) -> tuple[dict[str, str], frozenset[str], str]:
    """The parts of an answer by name, which of them are wrong, and a verdict in a few words."""
    task, truth = example.metadata[TASK], str(example.metadata["label"])
    facts: dict[str, str] = {}
    wrong: set[str] = set()
    verdict = []
    if task in ("explain", "question"):
        rationale = rationale_of(example, text)
        steps, right = count_steps(rationale)
        facts["rationale"] = rationale or "none"
        verdict.append(f"{right} of {steps} steps right" if steps else "no arithmetic")
        wrong |= {"rationale"} if right < steps else set()
    if task in ("predict", "question"):
        label = label_of(text)
        facts["label"] = label or "none"
        if example.metadata["equation"]:
            value, true_value = value_of(label), value_of(truth)
            facts["value"] = "malformed" if value is None else str(value)
            facts["true value"] = str(true_value)
        is_hit = is_right(label, truth, bool(example.metadata["equation"]))
        verdict.append("right" if is_hit else "wrong")
        wrong |= set() if is_hit else {"label", "value"} & set(facts)
        facts["true label"] = truth
    return facts, frozenset(wrong), ", ".join(verdict)


def side_by_side(answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
    """A table for each model that has rationales and labels of the same items: both beside each other."""
    charts = []
    for name, given in answers.items():
        by_item: dict[str, dict[str, Answer]] = {}
        for answer in given:
            by_item.setdefault(str(answer["metadata"][ITEM]), {})[str(answer["metadata"][TASK])] = answer
        both = [tasks for tasks in by_item.values() if {"predict", "explain"} <= set(tasks)]
        if both:
            rows = "".join(map(_row, both[:MAX_ITEMS]))
            header = "<tr><th>question</th><th>rationale</th><th>label</th><th>value</th><th></th></tr>"
            caption = f"{name}: rationale and label of the first {min(len(both), MAX_ITEMS)} of {len(both)} items"
            charts.append(Chart(caption, f"<table>{header}{rows}</table>"))
    return charts


def _row(tasks: Mapping[str, Answer]) -> str:
    predict, explain = (
        Example(str(answer["id"]), (), metadata=answer["metadata"]) for answer in (tasks["predict"], tasks["explain"])
    )
    label, _, verdict = describe(predict, str(tasks["predict"]["text"]))
    rationale, _, steps = describe(explain, str(tasks["explain"]["text"]))
    value = f"{label['value']} (true: {label['true value']})" if "value" in label else label["true label"]
    cells = [str(predict.metadata["input"]), f"{rationale['rationale']} [{steps}]", label["label"], value, verdict]
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def share_curves(
    shares: Mapping[str, Mapping[str, Sequence[str]]],
    answers: Mapping[str, Sequence[Answer]],
    summarise: Callable[[list[dict[str, float]]], dict[str, float]],
) -> list[Chart]:
    """Label accuracy over the share of the training items, a line for each name: the mean over its models."""
    lines = {}
    for name, points in shares.items():
        x, y = [], []
        for percent, models in points.items():
            scores = [[dict(answer["scores"]) for answer in answers[model]] for model in models if model in answers]
            found = [summarise(each).get("label_accuracy") for each in scores]
            values = [value for value in found if value is not None]
            if values:
                x.append(float(percent))
                y.append(sum(values) / len(values))
        if x:
            lines[name] = (x, y)
    if not lines:
        return []
    caption = "Label accuracy over the share of the training items, mean of the seeds"
    return [Chart(caption, curves(lines, "percent of the training items", "label accuracy"))]
