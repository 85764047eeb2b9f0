"""Tables and charts of a report about all answers: hit ratios by task and by round of feedback."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from student.tasks.drug_editing.instructions import INSTRUCTIONS
from student.tasks.drug_editing.metrics import ratio, scores_after_feedback
from student.tasks.figures import curves
from student.tasks.html import table
from student.tasks.task import Answer, Chart

SEED = re.compile(r"_\d+$")


def task_table(answers: Mapping[str, Sequence[Answer]]) -> Chart:
    """Loose and strict hit ratios over all answers and over the valid ones, by task and model."""
    pooled = _pool_seeds(answers)
    header = ["task", *pooled]
    rows = []
    for number, (words, _) in INSTRUCTIONS.items():
        cells = [_cell([a["scores"] for a in given if a["scores"]["task"] == number]) for given in pooled.values()]
        rows.append([f"{number} {words}", *cells])
    rows.append(["all", *(_cell([answer["scores"] for answer in given]) for given in pooled.values())])
    caption = "Hits by task: loose / strict over all answers (loose / strict over valid ones), n; seeds are pooled"
    return Chart(caption, table(header, rows))


def round_chart(answers: Mapping[str, Sequence[Answer]]) -> Chart | None:
    """Loose hit ratio over all answers after 0, 1, ... rounds of feedback. None if no answer got feedback."""
    pooled = _pool_seeds(answers)
    rounds = max((len(answer.get("rounds", ())) for given in pooled.values() for answer in given), default=0)
    if not rounds:
        return None
    lines = {}
    for name, given in pooled.items():
        ratios = [ratio(sum(_after(answer, c)["loose"] for answer in given), len(given)) for c in range(rounds + 1)]
        lines[name] = (list(range(rounds + 1)), ratios)
    return Chart("Loose hits over all answers, by rounds of feedback", curves(lines, "rounds of feedback", "hit ratio"))


def _after(answer: Answer, rounds: int) -> Mapping[str, float]:
    """The scores that count after so many rounds."""
    later = answer.get("rounds", ())[:rounds]
    return scores_after_feedback([answer["scores"], *(each["scores"] for each in later)])


def _pool_seeds(answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[Answer]]:
    """The answers of models that differ in a number at the end of their name alone, under one name."""
    pooled: defaultdict[str, list[Answer]] = defaultdict(list)
    for name, given in answers.items():
        pooled[SEED.sub("", name)] += given
    return dict(pooled)


def _cell(scores: Sequence[Mapping[str, float]]) -> str:
    if not scores:
        return "no prompt"
    valid = sum(score["valid"] for score in scores)
    loose, strict = (sum(score[name] for score in scores) for name in ("loose", "strict"))
    over_all = f"{ratio(loose, len(scores)):.2f} / {ratio(strict, len(scores)):.2f}"
    return f"{over_all} ({ratio(loose, valid):.2f} / {ratio(strict, valid):.2f}), {len(scores)}"
