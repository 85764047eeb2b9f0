"""Complete runs of special students: of averaged teachers, with another tokenizer, and classifiers."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cache.errors import SpecMismatchError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.examples.tokenizers import tokenizer_digest
from cache.rendering.render import render
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.classification.settings import ClassSettings
from student.evaluation.classifier import evaluate_classifier
from student.evaluation.heldout_examples import HeldoutExamples
from student.tokenizers.bpe import learn_tokenizer, save_tokenizer
from tests.records import random_targets
from tests.student.training.ranks import VOCAB, Job, curve, metrics, settings_of, start

pytestmark = pytest.mark.slow

CLASSES = {"labels": {"one": [" one", "one"], "two": [" two", "two"]}, "at": "response"}
COMPACT = {"model_type": "logitbank_compact", "kind": "embedding_bag", "width": 4, "vocab_size": 300}
LEARN = {"lr": 0.05, "warmup_steps": 0}


def store_of(folder: Path, tiny_model: Path, examples: list[Example], seed: int, sure: float = 0.0) -> Path:
    """Scored examples with random rows; with `sure` the first row of a response has that much mass on its token."""
    rng = np.random.default_rng(seed)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    digest = tokenizer_digest(tokenizer)
    spec = StoreSpec(
        str(tiny_model), f"w{seed}", digest, "c", VOCAB, len(tokenizer), "float32", TargetSpec("topk", 16), None
    )
    storage = LocalStorage(folder)
    create_store(storage, spec)
    records = []
    for example in examples:
        tokenized = render(example, tokenizer)
        first, n = tokenized.prompt_length, len(tokenized.tokens)
        rows = random_targets(rng, n - first, vocab=VOCAB)
        if sure:
            others = np.setdiff1d(np.arange(20, 40, dtype=np.uint32), tokenized.tokens[first])[:15]
            held = np.append(sure, np.full(15, (1 - sure) / 16))
            ids = np.append(tokenized.tokens[first], others).astype(np.uint32)
            sharp = SparseTargets(
                np.array([0, 16]), ids, np.log(held).astype(np.float32), np.log([np.float32(held[-1])])
            )
            rows = concatenate([sharp, rows.rows(1, n - first)])
        targets = concatenate([empty_targets(first - 1), rows, empty_targets(1)])
        records.append(Record(tokenized.key, tokenized, targets, np.full(n, np.nan, np.float32)))
    write_unit(storage, spec, records)
    take_snapshot(storage)
    return folder


def graded() -> list[Example]:
    """Texts of red and green, answered by one and two; the true label of every fourth is the other."""
    examples = []
    for i in range(40):
        answer = ("one", "two")[i % 2]
        text = " ".join([("red", "green")[i % 2], "left"] * (1 + i % 3) + [str(i)])
        label = answer if i % 4 else "two"
        examples.append(Example(str(i), ({"role": "user", "content": text},), response=answer, label=label))
    return examples


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    root = tmp_path_factory.mktemp("special")
    said = [Example(str(i), ({"role": "user", "content": f"say {i}"},), response="one and two " * 3) for i in range(12)]
    stores = [store_of(root / f"teacher-{seed}", tiny_model, said, seed) for seed in (0, 1)]
    store_of(root / "graded", tiny_model, graded(), 2, sure=0.9)
    write_examples(root / "graded.jsonl", graded())
    words = [Example(str(i), (), response=text) for i, text in enumerate(["one and", "two one", "and two"] * 5)]
    other: Any = learn_tokenizer(words, 300)
    assert isinstance(other, PreTrainedTokenizerFast)
    save_tokenizer(other, root / "other")
    teachers = [{"store": str(store), "weight": weight} for store, weight in zip(stores, (1.0, 3.0), strict=True)]
    run = {"ranks": 1, "micro_batch_size": 8, "zero_stage": 1}

    def job(name: str, of: Path, **sections: Any) -> Job:
        sections["run"] = {**run, **sections.get("run", {})}
        return Job(settings_of(root / name, of, **sections))

    other_tokens = {"data": {"align": "cross_tokenizer"}, "tokenizer": {"path": str(root / "other")}}
    compact = {"model": {"config": COMPACT}, "tokenizer": {"vocab_size": 300}, "classes": CLASSES, "optimizer": LEARN}
    averaged = settings_of(root / "averaged", stores[0], run=run).model_dump(mode="json", exclude_unset=True)
    averaged["data"] = {"teachers": teachers}
    hard = settings_of(root / "hard", stores[0], loss={"objective": "hard_label"}, run=run, **compact)
    fields = hard.model_dump(mode="json", exclude_unset=True)
    fields |= {"data": {"examples": str(root / "graded.jsonl")}, "run": {**fields["run"], "steps": 40}}
    jobs = [
        Job(type(hard).model_validate(averaged)),
        job("same", stores[0]),
        job("cross", stores[0], run={"steps": 20}, optimizer=LEARN, **other_tokens),
        job("soft", root / "graded", loss={"temperature": 2.0}, run={"steps": 40}, **compact),
        Job(type(hard).model_validate(fields)),
    ]
    launch = start(jobs, 1, root / "log")
    try:
        assert launch.wait(300) == 0, (root / "log").read_text()[-3000:]
    finally:
        if launch.poll() is None:
            os.killpg(launch.pid, signal.SIGKILL)
    return root


def test_averaged_teachers_teach_something_else_than_one(runs: Path) -> None:
    """Would catch the first store read alone; the result names both stores."""
    assert len(curve(runs / "averaged")) == 4
    assert curve(runs / "averaged")[0][0] != pytest.approx(curve(runs / "same")[0][0], rel=1e-3)
    result = json.loads((runs / "averaged" / "training.json").read_text())
    assert len({store["fingerprint"] for store in result["stores"]}) == 2
    card = (runs / "averaged" / "model" / "README.md").read_text()
    assert all(store["fingerprint"] in card for store in result["stores"])


def test_a_student_with_another_tokenizer_learns(runs: Path) -> None:
    """Would catch logits of the teacher's vocabulary, and shares that nobody is told."""
    result = json.loads((runs / "cross" / "training.json").read_text())
    assert "student tokens" in result["notes"] and "masked" in result["notes"]
    objectives = [line["objective"] for line in metrics(runs / "cross")]
    assert objectives[-1] < 0.8 * objectives[0]
    own = AutoTokenizer.from_pretrained(runs / "other")
    config = json.loads((runs / "cross" / "model" / "config.json").read_text())
    assert config["vocab_size"] == len(own) != VOCAB
    assert tokenizer_digest(AutoTokenizer.from_pretrained(runs / "cross" / "model")) == tokenizer_digest(own)


def test_classifiers_learn_teacher_distributions_and_true_labels(runs: Path) -> None:
    """The soft student learns what the teacher says (90% sure), the hard one the labels, of which a quarter differ."""
    store = LogitStore.open(str(runs / "graded"))
    classes = ClassSettings.model_validate(CLASSES)
    soft, hard = (
        evaluate_classifier(str(runs / name / "model"), HeldoutExamples(store), classes, lambda done, total: None)
        for name in ("soft", "hard")
    )
    assert soft["rows"] == soft["labelled"] == 40
    assert soft["top1_agreement"] == 1.0 and soft["accuracy"] == 0.75
    assert soft["kl_to_teacher"] < 0.1 < hard["kl_to_teacher"]
    assert 1000 < soft["parameters"] < 2000 and soft["ms_per_text"] > 0
    assert {"macro_f1", "qwk", "ece"} <= set(soft)
    with pytest.raises(SpecMismatchError, match="has the classes"):
        swapped = ClassSettings.model_validate({"labels": dict(reversed(CLASSES["labels"].items()))})  # type: ignore[attr-defined]
        evaluate_classifier(str(runs / "soft" / "model"), HeldoutExamples(store), swapped, lambda done, total: None)
