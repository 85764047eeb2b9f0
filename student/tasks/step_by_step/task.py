"""The task: its settings, and the examples of each split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cache.errors import InputError
from cache.examples.example import Example
from cache.progress import Progress
from student.tasks.step_by_step import display, judging
from student.tasks.step_by_step.captured import add_captured
from student.tasks.step_by_step.datasets import DATA_SETS, DataSet, read_split
from student.tasks.step_by_step.examples import TASK, LabelType, ModelType, make_examples, own_explanation
from student.tasks.step_by_step.items import Item, can_be_right, take_share
from student.tasks.step_by_step.llm_outputs import FORMS, GPT_FOLDER, add_outputs, describe_explanations
from student.tasks.step_by_step.synthetic import make_problems
from student.tasks.task import Answer, Built, Chart, Panel, Task

# Share of the training items that validate, where a data set has no file for it.
VALID_SHARE = 0.1
# Why an item is left out for which no answer is right.
NO_VALUE = "whose true label has no value"
DataSetName = Literal["synthetic", "svamp", "asdiv", "cqa", "esnli", "anli1", "anli2", "anli3", "generic"]


class StepByStep(Task):
    """Distilling step-by-step (`[task] name = "step_by_step"`).

    llm: whose rationales and labels are used. palm, gpt: published outputs beside the data set. own: the rationales
    that the data set itself has (the generic files, synthetic problems). captured: those of `answers`, which a teacher
    wrote and `logitbank export` put into a JSON Lines file.
    subsample keeps a part of the training items; a smaller part is a part of a larger one of the same `run`.
    """

    labels_have_order: ClassVar[bool] = False  # answers to questions
    build_keys: ClassVar[tuple[str, ...]] = (
        *("dataset", "data", "llm", "answers", "label_type", "model_type", "subsample", "run", "separator", "problems"),
    )

    name: Literal["step_by_step"] = Field("step_by_step", description="selects this task")
    dataset: DataSetName = Field("synthetic", description="data set; synthetic problems need no data")
    data: Path | None = Field(None, description="folder with a folder for each data set; not for synthetic")
    llm: Literal["palm", "gpt", "own", "captured"] | None = Field(None, description="whose rationales and labels")
    answers: Path | None = Field(None, description='answers of a teacher, JSON Lines, with llm = "captured"')
    label_type: LabelType = Field("gt", description="labels of training: gt, the true ones; llm, those of the LLM")
    model_type: ModelType = Field(
        "task_prefix",
        description="standard: labels; task_prefix: labels and rationales as two tasks; chain: both in one answer; "
        "questions: prompts for a teacher",
    )
    subsample: float = Field(1.0, gt=0, le=1, description="share of the training items")
    run: int = Field(0, description="seed of the subsample")
    separator: str = Field("</s>", description="between premise and hypothesis; T5's end token by default")
    problems: tuple[int, int, int] = Field(
        (2000, 200, 400), description="synthetic problems for training, validation and test"
    )
    curves: dict[str, dict[str, tuple[str, ...]]] = Field(
        {}, description="for the report: models by name of a curve and percent of the training items"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.dataset != "synthetic" and self.data is None:
            raise ValueError(f"dataset = {self.dataset!r} needs 'data', the folder with {self.dataset}/")
        if (self.llm == "captured") != (self.answers is not None):
            raise ValueError("llm = 'captured' and 'answers' belong together; give both or neither")
        if self.llm in ("palm", "gpt") and self.dataset not in FORMS:
            raise ValueError(f"llm = {self.llm!r} has no published outputs for {self.dataset}; use llm = 'own'")
        if self.llm is None and self.label_type == "llm":
            raise ValueError("label_type = 'llm' needs 'llm', whose labels are used")
        return self

    def unused_keys(self) -> dict[str, str]:
        unused = {}
        if self.dataset == "synthetic":
            unused["data"] = "synthetic problems are made, not read"
        else:
            unused["problems"] = "it is about synthetic problems"
        if self.dataset not in ("esnli", "anli1", "anli2", "anli3"):
            unused["separator"] = "only premise and hypothesis are joined by it"
        if self.subsample == 1:
            unused["run"] = "it is the seed of 'subsample'"
        return unused

    def build(self, progress: Progress) -> Built:
        """Build the splits "train", "valid" and "test". The test items do not depend on `subsample` and `run`.

        "test_labels" has the test items without the questions for rationales.
        """
        if self.llm is None and self.model_type in ("task_prefix", "chain"):
            raise InputError(f"task.model_type = {self.model_type!r} learns rationales; give task.llm, whose they are")
        items, facts = self._items(), dict[str, Any]()
        splits: dict[str, list[Example]] = {}
        for number, (split, own) in enumerate(items.items(), start=1):
            explained, skipped = self._explained(split, own)
            usable = [item for item in explained if can_be_right(item)]
            chosen = take_share(usable, self.subsample, self.run) if split == "train" else usable
            left_out = Counter({**skipped, NO_VALUE: len(explained) - len(usable)})
            splits[split] = make_examples(chosen, self.model_type, self.label_type, split == "train", left_out)
            facts[split] = {"items": len(chosen), "left_out": dict(+left_out)}
            if self.llm is not None and not self._has_own_explanations(split):
                facts[split]["llm"] = describe_explanations(chosen)
            progress(number, len(items))
        if self.model_type == "task_prefix":
            splits["test_labels"] = [example for example in splits["test"] if example.metadata[TASK] == "predict"]
        if not splits["train"]:
            raise InputError(f"data set {self.dataset}: no item is left for training ({facts['train']['left_out']})")
        return Built(splits, {"dataset": self.dataset, **facts})

    def inputs(self) -> list[Path]:
        """The folders of the data set and of the one that it trains with, and the answers of a teacher.

        `data` is no input as a whole: other data sets, of any size, may be beside these.
        """
        answers = [] if self.answers is None else [self.answers]
        if self.data is None:
            return answers
        own = DATA_SETS[self.dataset]
        names = [own.name, *([own.trains_with] if own.trains_with else [])]
        roots = [self.data, *([self.data / GPT_FOLDER] if self.llm == "gpt" else [])]
        return [*(root / name for root in roots for name in names), *answers]

    def judge(self, example: Example, text: str) -> dict[str, float]:
        """The scores of one answer (student.tasks.step_by_step.judging)."""
        return judging.judge(example, text)

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Label accuracy, malformed labels, and how good the rationales are."""
        return judging.summarise(scores)

    def panel(self, example: Example, text: str) -> Panel | None:
        """The question, and the label with its value, or the rationale with its steps."""
        return display.panel(example, text)

    def charts(self, answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
        """Rationales beside labels, and curves over shares of the data."""
        return [*display.side_by_side(answers), *display.share_curves(self.curves, answers, self.summarise)]

    def _items(self) -> dict[str, list[Item]]:
        """The items of each split, before a subsample."""
        if self.dataset == "synthetic":
            train, valid, test = self.problems
            made = make_problems(train + valid + test, 0)
            # Test and validation first: they stay the same if there are more training problems.
            return {"train": made[valid + test :], "valid": made[test : valid + test], "test": made[:test]}
        assert self.data is not None
        data_set = DATA_SETS[self.dataset]
        return {split: self._read(data_set, split) for split in ("train", "valid", "test")}

    def _read(self, data_set: DataSet, split: str) -> list[Item]:
        assert self.data is not None
        source = DATA_SETS[data_set.trains_with] if data_set.trains_with and split != "train" else data_set
        if split == "test" or data_set.has_valid:
            return self._with_outputs(source, split)
        train = self._with_outputs(data_set, "train")
        if data_set.trains_with:
            train = self._with_outputs(DATA_SETS[data_set.trains_with], "train") + train
        valid = {item.id for item in take_share(train, VALID_SHARE, "valid")}
        return [item for item in train if (item.id in valid) == (split == "valid")]

    def _with_outputs(self, data_set: DataSet, split: str) -> list[Item]:
        assert self.data is not None
        items = read_split(data_set, self.data, split, self.separator)
        return add_outputs(items, self.data, data_set.name, split, self.llm) if self.llm in ("palm", "gpt") else items

    def _has_own_explanations(self, split: str) -> bool:
        """Whether rationales and labels are those of the data set, so that they say nothing about an LLM."""
        return self.llm == "own" or (self.llm == "captured" and split != "train")

    def _explained(self, split: str, items: list[Item]) -> tuple[list[Item], dict[str, int]]:
        """Items with explanations that are not in the files of the data set. Test items have those of the data set."""
        if self._has_own_explanations(split):
            return [replace(item, explanations=own_explanation(item)) for item in items], {}
        if self.llm == "captured" and self.answers is not None:
            return add_captured(items, self.answers)
        return items, {}
