"""The table of all tasks in README.md: one comparison of a distilled student with its baseline for each."""

import json
from dataclasses import dataclass
from typing import Any

from docs.generate.measurements.results import RESULTS, table


@dataclass(frozen=True, slots=True)
class Headline:
    """What the table shows of a task.

    file: below benchmarks/results/tasks/. title: of its table, or the start of it. metric: a row. teacher, distilled,
    baseline: columns.
    """

    task: str
    page: str
    what: str
    file: str
    title: str
    metric: str
    teacher: str
    distilled: str
    baseline: str


HEADLINES = (
    Headline(
        *(
            "`make demo-drug`",
            "drug_editing",
            "KL to the generalist on questions in new words, less is better: its distributions, its texts alone",
        ),
        *("drug", "language", "kl_to_teacher", "teacher", "after", "text"),
    ),
    Headline(
        *(
            "`make demo-medical`",
            "medical_conversation",
            "micro F1 of the fields of a record, Llama: the teacher's distributions, its records as texts",
        ),
        *("medical", "", "field_micro_f1", "teacher", "llama", "llama_text"),
    ),
    Headline(
        *(
            "`make demo-science`",
            "science_scoring",
            "accuracy on Beetle with 633 grades: the teacher's probabilities of all answers, true grades",
        ),
        *("science_beetle", "", "accuracy", "teacher", "kd", "ce"),
    ),
    Headline(
        *(
            "`make demo-recipe`",
            "recipe_dialogue",
            "token F1 of answers on CookDial, 15 layers of a tuned teacher, 400 steps on a GPU: joint loss, "
            "cross-entropy alone",
        ),
        *("recipe_tuned_layers", "", "token_f1", "teacher", "kd", "ce"),
    ),
    Headline(
        *(
            "`make demo-step`",
            "step_by_step",
            "right labels of word problems: the teacher's distributions of labels and rationales, true labels alone",
        ),
        *("step", "", "label_accuracy", "teacher", "logits", "standard"),
    ),
)


def overview() -> str:
    """The table as Markdown. A cell without a figure says so."""
    rows = []
    for headline in HEADLINES:
        columns = _columns(headline)
        cells = [
            _cell(columns, name, headline.metric) for name in (headline.teacher, headline.distilled, headline.baseline)
        ]
        rows.append((headline.task, f"[{headline.what}](docs/tasks/{headline.page}.md)", *cells))
    return table(("command", "what is compared", "teacher", "distilled", "baseline"), rows)


def _columns(headline: Headline) -> dict[str, Any]:
    path = RESULTS / "tasks" / f"{headline.file}.json"
    tables = json.loads(path.read_text())["tables"] if path.is_file() else {}
    return next((columns for title, columns in tables.items() if title.startswith(headline.title)), {})


def _cell(columns: dict[str, Any], column: str, metric: str) -> str:
    value = columns.get(column, {}).get(metric)
    if value is None:
        return "not measured"
    if isinstance(value, dict):
        return f"{value['mean']:.3f} ({value['lowest']:.3f} to {value['highest']:.3f})"
    return f"{value:.3f}"
