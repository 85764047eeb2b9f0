"""What a report shows of predicted grades: confusion matrices, reliability, accuracy by question, published claims."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from student.tasks.html import table
from student.tasks.task import Answer, Chart

# Latif et al., AIED 2024 (https://arxiv.org/abs/2312.15842), as their abstract has them. They are about other data.
PUBLISHED = {"parameters": "4,000 x fewer", "time": "10 x faster", "hard": "+3%", "encoder": "+2%"}
MAX_MODELS = 5
BINS = 10


def answer_charts(answers: Mapping[str, Sequence[Answer]], words: Sequence[str]) -> list[Chart]:
    """Charts of the first MAX_MODELS models."""
    from student.tasks.figures import confusion_matrix

    if not answers:
        return []
    shown = dict(list(answers.items())[:MAX_MODELS])
    charts = []
    for name, given in shown.items():
        pairs = [(int(a["scores"]["true"]), int(a["scores"]["predicted"])) for a in given]
        counts, no_grade = np.zeros((len(words), len(words)), np.int64), 0
        for true, predicted in pairs:
            if true >= 0 and predicted >= 0:
                counts[true, predicted] += 1
            no_grade += true >= 0 > predicted
        used = np.flatnonzero(counts.sum(0) + counts.sum(1))
        matrix = counts[np.ix_(used, used)]
        what = "text that is no grade" if no_grade == 1 else "texts that are no grade"
        beside = f"; beside it {no_grade:,} {what}" if no_grade else ""
        charts.append(Chart(f"Confusion matrix: {name}{beside}", confusion_matrix(matrix, [words[i] for i in used])))
    if reliability := _reliability(shown):
        charts.append(Chart("Reliability: accuracy of predictions by their confidence", reliability))
    return [*charts, Chart("Accuracy by question", by_question(shown))]


def by_question(answers: Mapping[str, Sequence[Answer]]) -> str:
    """A line a question: number of graded answers, and the accuracy of each model. As an HTML table."""
    hits: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, given in answers.items():
        for answer in given:
            if answer["scores"]["true"] >= 0:
                hits[str(answer["metadata"]["question_id"])][name].append(float(answer["scores"]["right"]))
    rows = []
    for question in sorted(hits):
        of_models = hits[question]
        count = max(len(each) for each in of_models.values())
        cells = [f"{np.mean(of_models[name]):.2f}" if name in of_models else "" for name in answers]
        rows.append([question, f"{count:,}", *cells])
    return table(["question", "answers", *answers], rows)


def comparison_charts(metrics: Mapping[str, Mapping[str, float]]) -> list[Chart]:
    """The published claims beside the same ratios of these models.

    Models by name: "kd" the distilled net, "ce" the same net on hard labels, "encoder" the small encoder, "teacher".
    Without "kd" there is nothing to show. A ratio to a model that is absent is left out, and so is one of a metric that
    not both have: an evaluation without `classes` measures no time, and one without grades no accuracy.
    """
    kd = metrics.get("kd")
    if kd is None:
        return []
    rows = []

    def both_have(name: str, metric: str) -> bool:
        return metric in kd and metric in metrics.get(name, {})

    for name, title in (("teacher", "the teacher"), ("encoder", "the encoder")):
        if both_have(name, "parameters"):
            size = metrics[name]["parameters"] / kd["parameters"]
            published = PUBLISHED["parameters"] if name == "teacher" else ""
            rows.append([f"parameters, of {title}", published, f"{size:,.0f} x fewer"])
        if both_have(name, "ms_per_text"):
            speed = metrics[name]["ms_per_text"] / kd["ms_per_text"]
            rows.append([f"time for a text, of {title}", PUBLISHED["time"], f"{speed:,.1f} x faster"])
    names = (("ce", "the same net on hard labels", PUBLISHED["hard"]), ("encoder", "the encoder", PUBLISHED["encoder"]))
    for name, title, published in (*names, ("teacher", "the teacher", "comparable")):
        if both_have(name, "accuracy"):
            difference = 100 * (kd["accuracy"] - metrics[name]["accuracy"])
            rows.append([f"accuracy, against {title}", published, f"{difference:+.1f} points"])
    return [
        Chart(
            "Published claims (Latif et al. 2024, other data) and these models", table(["", "published", "here"], rows)
        )
    ]


def _reliability(answers: Mapping[str, Sequence[Answer]]) -> str:
    """Accuracy over confidence in BINS bins of equal width; empty if no answer has a confidence."""
    from student.tasks.figures import curves

    lines: dict[str, tuple[list[float], list[float]]] = {}
    for name, given in answers.items():
        scores = [a["scores"] for a in given if "confidence" in a["scores"] and a["scores"]["true"] >= 0]
        rows = [(score["confidence"], score["right"]) for score in scores]
        if not rows:
            continue
        confidence, right = np.array(rows, np.float64).T
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        used = [b for b in range(BINS) if (bins == b).any()]
        lines[name] = (
            [float(confidence[bins == b].mean()) for b in used],
            [float(right[bins == b].mean()) for b in used],
        )
    if not lines:
        return ""
    return curves({**lines, "as confident as right": ([0.0, 1.0], [0.0, 1.0])}, "confidence", "accuracy")
