"""The triad of retrieval-augmented generation, by embeddings and as questions to a judging model.

Context relevance: do the passages belong to the question? Groundedness: do the passages support the answer? Answer
relevance: does the answer fit the question? The triad is that of TruLens (https://www.trulens.org).
"""

import re
from collections.abc import Sequence

from student.tasks.recipe_dialogue.retrieval.embeddings import load_encoder
from student.tasks.task import Question

SENTENCE = re.compile(r"(?<=[.!?])\s+")
CONTEXT_RELEVANCE, GROUNDEDNESS, ANSWER_RELEVANCE = "context_relevance", "groundedness", "answer_relevance"
TRIAD = (CONTEXT_RELEVANCE, GROUNDEDNESS, ANSWER_RELEVANCE)


def embedding_triad(encoder: str, query: str, passages: Sequence[str], answer: str) -> dict[str, float]:
    """Cosine similarities, in -1..1. Without passages only the relevance of the answer; 0 for an empty answer.

    Context relevance is the mean over passages of their similarity to the query. Groundedness is the mean over the
    sentences of the answer of the similarity to the nearest passage. query: the question with what was said before it.
    """
    sentences = sentences_of(answer)
    texts = [query, *passages, *sentences, *([answer] if sentences else [])]
    vectors = load_encoder(encoder).embed(texts)
    question, context = vectors[0], vectors[1 : 1 + len(passages)]
    scores = {ANSWER_RELEVANCE: float(vectors[-1] @ question) if sentences else 0.0}
    if passages:
        support = vectors[1 + len(passages) : -1] @ context.T
        scores[CONTEXT_RELEVANCE] = float((context @ question).mean())
        scores[GROUNDEDNESS] = float(support.max(1).mean()) if sentences else 0.0
    return scores


def supports(encoder: str, passages: Sequence[str], answer: str) -> list[tuple[str, int, float]]:
    """Each sentence of an answer with the index of the nearest passage and their similarity. Needs passages."""
    sentences = sentences_of(answer)
    if not sentences:
        return []
    vectors = load_encoder(encoder).embed([*passages, *sentences])
    similarity = vectors[len(passages) :] @ vectors[: len(passages)].T
    return [(text, int(row.argmax()), float(row.max())) for text, row in zip(sentences, similarity, strict=True)]


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, cut after a full stop, an exclamation or a question mark. [] for a blank text."""
    return [sentence for sentence in SENTENCE.split(text.strip()) if sentence]


def judge_questions(query: str, passages: Sequence[str], answer: str) -> dict[str, Question]:
    """The three questions for a judging model, each to be answered with Yes or No. Without passages only the third."""
    context = "\n".join(f"- {passage}" for passage in passages)
    questions = {
        ANSWER_RELEVANCE: f"Question: {query}\nAnswer: {answer}\n\nDoes the answer fit the question?",
    }
    if passages:
        questions[CONTEXT_RELEVANCE] = (
            f"Recipe:\n{context}\n\nQuestion: {query}\n\nDoes the recipe contain what the question asks for?"
        )
        questions[GROUNDEDNESS] = (
            f"Recipe:\n{context}\n\nStatement: {answer}\n\nIs the statement taken from the recipe?"
        )
    return {
        name: Question(({"role": "user", "content": f"{text} Answer with Yes or No."},), {"Yes": 1.0, "No": 0.0})
        for name, text in questions.items()
    }
