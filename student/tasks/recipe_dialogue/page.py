"""What a report shows: answers with their sources, the triad of each model, the judges' separation, the retrieval."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from student.tasks.figures import grouped_bars
from student.tasks.html import escape, marked, paragraphs, table
from student.tasks.recipe_dialogue.examples import retrieval_facts
from student.tasks.recipe_dialogue.scoring import DEPTHS, answer_scores, means
from student.tasks.recipe_dialogue.triad import CONTEXT_RELEVANCE, TRIAD, supports
from student.tasks.task import Answer, Chart, Panel
from student.tasks.text_scores import normalise

WORD = re.compile(r"\w+")
# Answers that an evaluation adds to those of models: the references, and the references of other questions.
REFERENCE, SHUFFLED = "reference", "shuffled"
JUDGE = "judge_"


def answer_panel(facts: Mapping[str, Any], text: str, encoder: str | None) -> Panel:
    """The question with its passages, and the answer with the passages that support it. encoder: None shows no support.

    Words that answer and passage share are marked.
    """
    passages = [passage["text"] for passage in facts["passages"]]
    lines = "".join(f"<li>{escape(passage)}</li>" for passage in passages)
    prompt = (
        f"<p>{escape(facts['recipe'])}</p><p><b>{escape(facts['question'])}</b></p>"
        f"{f'<ol>{lines}</ol>' if passages else '<p>no passages</p>'}<p>reference: {escape(facts['answer'])}</p>"
    )
    answer = paragraphs(text)
    if encoder is not None and passages:
        for _, source, similarity in supports(encoder, passages, text):
            answer += f"<p>{similarity:.2f} passage {source + 1}: {_shared_words(passages[source], text)}</p>"
    return Panel(prompt, answer, _caption(facts, text))


def charts(answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
    """Charts about all answers; those that the scores allow."""
    scores = {name: means([answer["scores"] for answer in given]) for name, given in answers.items() if given}
    shown = []
    for prefix, title in (("", "The triad by embeddings (cosine)"), (JUDGE, "The triad by the judging model")):
        names = [prefix + name for name in TRIAD]
        groups = {
            model: {name.removeprefix(JUDGE).replace("_", " "): values[name] for name in names if name in values}
            for model, values in scores.items()
        }
        if any(groups.values()):
            shown.append(Chart(title, grouped_bars(groups, "mean score")))
    if rows := separation(answers):
        header = ("score", "mean of good cases", "mean of bad cases", "AUC")
        shown.append(Chart("How well each judge tells good from bad cases (AUC 0.5: not at all)", table(header, rows)))
    ranks = [answer["metadata"]["ranks"] for answer in next(iter(answers.values()), [])]
    if methods := retrieval_facts(ranks):
        names = [f"{level}_{name}" for level in ("document", "passage") for name in _measures()]
        rows = [[method, *(f"{values[name]:.3f}" for name in names)] for method, values in methods.items()]
        titles = ["retrieval", *(name.replace("_", " ") for name in names)]
        shown.append(Chart(f"Retrieval for {len(ranks):,} questions", table(titles, rows)))
    return shown


def separation(answers: Mapping[str, Sequence[Answer]]) -> list[list[str]]:
    """For each score of the triad: means over good and bad cases, and the area under the ROC curve between them.

    Good are the answers REFERENCE, and bad the answers SHUFFLED. For the relevance of the context, which does not
    depend on the answer, good are the prompts with a passage of the evidence. [] if there are not both cases.
    """
    right, wrong = answers.get(REFERENCE, ()), answers.get(SHUFFLED, ())
    with_evidence = [answer for answer in right if _has_evidence(answer["metadata"])]
    without = [answer for answer in right if not _has_evidence(answer["metadata"])]
    rows = []
    for name in [prefix + name for prefix in ("", JUDGE) for name in TRIAD]:
        cases = (with_evidence, without) if name.endswith(CONTEXT_RELEVANCE) else (right, wrong)
        good, bad = ([answer["scores"][name] for answer in case if name in answer["scores"]] for case in cases)
        if good and bad:
            means_and_area = (sum(good) / len(good), sum(bad) / len(bad), _area(good, bad))
            rows.append([name.replace("_", " "), *(f"{value:.3f}" for value in means_and_area)])
    return rows


def _has_evidence(facts: Mapping[str, Any]) -> bool:
    return bool({passage["id"] for passage in facts["passages"]} & set(facts["evidence"]))


def _area(good: Sequence[float], bad: Sequence[float]) -> float:
    """Area under the ROC curve: the share of pairs of a good and a bad case that are in order."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score([1] * len(good) + [0] * len(bad), [*good, *bad]))


def _measures() -> list[str]:
    return [*(f"recall_at_{k}" for k in DEPTHS), "mrr"]


def _shared_words(passage: str, answer: str) -> str:
    """The passage as HTML, with the words marked that the answer has too."""
    words = set(normalise(answer).split())
    spans = [match.span() for match in WORD.finditer(passage) if normalise(match[0]) in words]
    return marked(passage, spans)


def _caption(facts: Mapping[str, Any], text: str) -> str:
    scores = answer_scores(text, facts["answer"], facts["spans"])
    return f"F1 {scores['token_f1']:.2f}, ROUGE-L {scores['rouge_l']:.2f}, F1 with the recipe {scores['span_f1']:.2f}"
