"""Items as examples: the prompts of each kind of student and of a teacher, and the texts that are learned."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from cache.examples.example import Example
from student.tasks.step_by_step.items import Explanation, Item, value_of

# Prefixes of the two tasks (Hsieh et al. 2023, https://arxiv.org/abs/2305.02301).
PREDICT, EXPLAIN = "predict: ", "explain: "
# Between rationale and label where one answer has both.
ANSWER_MARKER = "The answer is"
# Keys of the metadata: the item, and which of the tasks the example is.
ITEM, TASK = "item", "task"

ModelType = Literal["standard", "task_prefix", "chain", "questions"]
LabelType = Literal["gt", "llm"]


def make_examples(
    items: Sequence[Item], model_type: ModelType, label_type: LabelType, is_training: bool, left_out: Counter[str]
) -> list[Example]:
    """Make the examples of the items. left_out: counts what an item lacks, by reason.

    standard: the label alone. task_prefix: the label after "predict:", and each rationale after "explain:", also where
    the LLM gave no usable label. chain: each rationale, then its label, in one answer: the true one, or the one that
    the LLM gave with it. questions: no answer; a teacher is to write it.
    Where it is not for training, labels are the true ones, and an item without a rationale still has its question.
    """
    examples = []
    for item in items:
        if model_type == "questions":
            examples.append(_example(item, "question", item.input, ""))
            continue
        is_llm = label_type == "llm" and is_training
        label = llm_label(item) if is_llm else item.label
        if not label:
            left_out["without a usable label of the LLM"] += 1
        explained = [each for each in item.explanations if each.rationale]
        if label and model_type != "standard" and not explained:
            left_out["without a rationale"] += 1
        explained = explained if is_training else explained[:1]
        if model_type == "chain":
            chains = [(each.rationale, _usable(item, each.label) if is_llm else label) for each in explained]
            examples += [_chain(item, *chain, number) for number, chain in enumerate(chains) if chain[1]]
            continue
        prefix = PREDICT if model_type == "task_prefix" else ""
        examples += [_example(item, "predict", prefix + item.input, label)] if label else []
        if model_type == "task_prefix":
            examples += [
                _example(item, "explain", EXPLAIN + item.input, each.rationale, number)
                for number, each in enumerate(explained)
            ]
    return examples


def llm_label(item: Item) -> str:
    """The first label of the LLM that can be used: for equations one that has a value. Empty if there is none."""
    return next(filter(None, (_usable(item, each.label) for each in item.explanations)), "")


def _usable(item: Item, label: str) -> str:
    """The label, or empty if it cannot be used."""
    return label if label and (not item.is_equation or value_of(label) is not None) else ""


def own_explanation(item: Item) -> tuple[Explanation, ...]:
    """The rationale that the data set itself has, with the true label. Without a rationale, the label alone."""
    return (Explanation(item.rationale, item.label),)


def _chain(item: Item, rationale: str, label: str, number: int) -> Example:
    return _example(item, "question", item.input, f"{ANSWER_MARKER} {label}.", number, rationale + " ")


def _example(item: Item, task: str, prompt: str, response: str, number: int = 0, rationale: str = "") -> Example:
    if task == "explain":
        rationale, response = response, ""
    metadata: dict[str, Any] = {ITEM: item.id, TASK: task, "input": item.input, "label": item.label}
    metadata["equation"] = item.is_equation
    return Example(
        id=f"{item.id}-{task}" + (f"-{number}" if number else ""),
        messages=({"role": "user", "content": prompt},),
        rationale=rationale,
        response=response,
        metadata=metadata,
        label=item.label,
    )
