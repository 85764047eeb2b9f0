"""The task: questions about edits, and scores of the answers."""

import re
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from cache.errors import InputError
from cache.examples.example import Example
from cache.json_documents import digest
from cache.progress import Progress
from student.tasks.drug_conversation.questions import Question, draw_question, open_questions
from student.tasks.html import paragraphs
from student.tasks.task import Built, Panel, Task
from student.tasks.text_scores import rouge

# Draws for each question that is wanted, before the words are taken to be used up.
MAX_DRAWS = 50
NAMES = {
    "LogP": r"\blogp\b",
    "QED": r"\bqed\b",
    "TPSA": r"\btpsa\b",
    "acceptors": r"\bacceptors?\b",
    "donors": r"\bdonors?\b",
}
RISES, FALLS = r"\b(rise|rises|raise|increase|increases|higher)\b", r"\b(fall|falls|lower|decrease|decreases|reduce)\b"


class DrugConversation(Task):
    """Talk about edits of molecules (`[task] name = "drug_conversation"`).

    Splits: train, and heldout in words that training never has. Open questions come first in both; they have no answer,
    so only a teacher that writes (`[generation]`) answers them.
    """

    build_keys: ClassVar[tuple[str, ...]] = ("train_questions", "heldout_questions", "seed")

    name: Literal["drug_conversation"] = Field("drug_conversation", description="selects this task")
    train_questions: int = Field(800, ge=1, description="different training questions with answers")
    heldout_questions: int = Field(100, ge=1, description="different held-out questions with answers")
    seed: int = Field(0, ge=0, description="of the choice of words and numbers")

    def build(self, progress: Progress) -> Built:
        """Draw different questions. Raises InputError if there are not so many."""
        sizes = {"train": self.train_questions, "heldout": self.heldout_questions}
        splits = {}
        for split, size in sizes.items():
            is_new = split == "heldout"
            rng = np.random.default_rng([self.seed, is_new])
            drawn: dict[tuple[str, str], Question] = {}
            for _ in range(MAX_DRAWS * size):
                if len(drawn) == size:
                    break
                question = draw_question(rng, is_new)
                drawn.setdefault((question.text, question.answer), question)
                progress(len(drawn), size)
            if len(drawn) < size:
                key = "task.heldout_questions" if is_new else "task.train_questions"
                raise InputError(f"{key} = {size}: there are about {len(drawn)} different ones; give a smaller number")
            splits[split] = [_example(each) for each in [*open_questions(is_new), *drawn.values()]]
        kinds = {
            split: {
                kind: sum(e.metadata["kind"] == kind for e in each) for kind in ("meaning", "effect", "reword", "open")
            }
            for split, each in splits.items()
        }
        return Built(splits, {"questions_by_kind": kinds})

    def judge(self, example: Example, text: str) -> dict[str, float]:
        """ROUGE-L to the true answer; and for questions about the meaning, whether property and direction are right.

        asks_meaning, meaning: 1 or 0. has_answer: 0 for open questions, which have no true answer.
        """
        facts = example.metadata
        if not {"kind", "property", "direction", "true_answer"} <= set(facts):
            raise InputError(
                f"example {example.id}: its metadata has no 'kind' and 'property', so it is not an example of "
                "drug_conversation; give the [task] that built the examples"
            )
        asks = facts["kind"] == "meaning"
        return {
            "has_answer": float(bool(facts["true_answer"])),
            "rouge_l": rouge(text, facts["true_answer"])["rougeL"] if facts["true_answer"] else 0.0,
            "asks_meaning": float(asks),
            "meaning": float(asks and names_change(text, facts["property"], facts["direction"])),
        }

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Mean ROUGE-L over answers, and the accuracy over questions about the meaning."""
        total = {
            name: sum(score[name] for score in scores) for name in ("has_answer", "rouge_l", "asks_meaning", "meaning")
        }
        return {
            "rouge_l": total["rouge_l"] / max(total["has_answer"], 1),
            "meaning_accuracy": total["meaning"] / max(total["asks_meaning"], 1),
            "meaning_questions": int(total["asks_meaning"]),
        }

    def panel(self, example: Example, text: str) -> Panel | None:
        """The question and the answer. The caption says whether the meaning was understood, where that is asked."""
        scores = self.judge(example, text)
        caption = "open question" if not scores["has_answer"] else f"ROUGE-L {scores['rouge_l']:.2f}"
        if scores["asks_meaning"]:
            caption = f"{'right' if scores['meaning'] else 'wrong'} change, {caption}"
        return Panel(paragraphs(example.metadata["question"]), paragraphs(text), caption)


def names_change(text: str, name: str, direction: int) -> bool:
    """Whether the first sentence names this property, no other one, and this direction alone."""
    sentence = re.split(r"[.\n](?:\s|$)", text.strip())[0].lower()
    named = [each for each, pattern in NAMES.items() if re.search(pattern, sentence)]
    rises, falls = bool(re.search(RISES, sentence)), bool(re.search(FALLS, sentence))
    return named == [name] and (rises, falls) == (direction > 0, direction < 0)


def _example(question: Question) -> Example:
    name, direction = question.about
    return Example(
        id=digest([question.text, question.answer])[:16],
        messages=({"role": "user", "content": question.text},),
        response=question.answer,
        metadata={
            "kind": question.kind,
            "property": name,
            "direction": direction,
            "question": question.text,
            "true_answer": question.answer,
        },
    )
