"""Texts that students write while they learn: the same on any ranks and stage, and without effect on the training."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer, LlamaConfig

from cache.errors import InputError
from cache.rows.record import Window
from cache.store.logit_store import LogitStore
from student.data.settings import DataSettings
from student.data.sources import StoreSource
from student.losses.settings import LossSettings
from student.models.build import load_student
from student.models.generation import generate_texts
from student.training.planning.plan import job_digest
from student.training.planning.planner import plan_training
from student.training.planning.sample_prompts import sample_prompts
from student.training.planning.stores import OpenStores
from student.training.planning.vocabulary import Vocabulary
from student.training.settings import SampleSettings, TrainSettings
from tests.student.training.ranks import MIX, TOPK, VOCAB, Job, curve, make_pretrained, make_store, settings_of, start

T5 = {
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
    "initializer_factor": 2.0,
}
SAMPLES = {"every": 3, "count": 3, "max_new_tokens": 12}
# By name: ranks, number of samples, and what differs from the plain job. One prompt for two ranks leaves one without.
STAGE_3: dict[str, Any] = {"run": {"zero_stage": 3}}
CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "plain": (1, 3, {}),
    "stage_0": (1, 3, {"run": {"zero_stage": 0}}),
    "stage_1_ranks": (2, 3, {"run": {"zero_stage": 1}}),
    "stage_3_ranks": (2, 3, STAGE_3),
    "stage_3_one_prompt": (2, 1, STAGE_3),
    # More than one batch a rank, and not the same number of prompts.
    "stage_3_many": (2, 17, STAGE_3),
    "many": (1, 17, {}),
    "offload": (2, 1, {"run": {"zero_stage": 3, "offload": "all"}}),
    "t5": (1, 3, {"model": {"config": T5}}),
    "t5_stage_3": (2, 3, {"model": {"config": T5}, **STAGE_3}),
    "checkpointing": (1, 3, {"model": {"gradient_checkpointing": True}}),
}
ADAPTERS = {"lora": {"rank": 4, "target_modules": ["q_proj", "lm_head"]}}


@contextmanager
def ranks_of(jobs: list[Job], ranks: int, log: Path) -> Iterator[None]:
    process = start(jobs, ranks, log)
    try:
        yield
        assert process.wait(600) == 0, log.read_text()[-3000:]
    finally:
        process.kill()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """One folder a run. Those of `silent` write no samples; `again` continues one that ended between two samples."""
    folder = tmp_path_factory.mktemp("samples")
    store = make_store(folder / "store", tiny_model, TOPK, 40)
    heldout = {"store": make_store(folder / "heldout", tiny_model, TOPK, 20, seed=5), "every": 2}
    pretrained = make_pretrained(folder / "pretrained", tiny_model)
    with_adapters = {"model": {"pretrained": str(pretrained), **ADAPTERS}}
    cases = {**CASES, "adapters": (1, 3, with_adapters), "adapters_stage_3": (2, 3, {**with_adapters, **STAGE_3})}
    jobs: dict[int, list[Job]] = {1: [], 2: []}

    def add(name: str, ranks: int, after: Path | None = None, **options: Any) -> None:
        run = {"steps": 4, "micro_batch_size": 2, **options.pop("run", {})}
        options = {"heldout": heldout, "loss": MIX, "run": run, **options}
        settings = settings_of(folder / name, store, **options)
        jobs[ranks].append(Job(settings, after))

    for name, (ranks, count, options) in cases.items():
        add(name, ranks, samples={**SAMPLES, "count": count}, **options)
    add("without_heldout", 1, samples=SAMPLES, heldout=None)
    add("silent", 1)
    add("silent_stage_3", 2, **STAGE_3)
    add("again", 1, samples=SAMPLES, run={"steps": 2, "checkpoint_every": 2})
    add("again", 1, folder / "again", samples=SAMPLES, run={"steps": 4, "checkpoint_every": 2})
    with ranks_of(jobs[1], 1, folder / "one.log"), ranks_of(jobs[2], 2, folder / "two.log"):
        pass
    return folder


def lines(run: Path) -> list[dict[str, Any]]:
    if (run / "error").exists():
        raise AssertionError((run / "error").read_text())
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", [*CASES, "adapters", "adapters_stage_3"])
def test_a_run_has_samples_of_its_start_of_every_third_step_and_of_its_end(runs: Path, name: str) -> None:
    found = lines(runs / name)
    assert [line["step"] for line in found] == [0, 3, 4]
    count = CASES[name][1] if name in CASES else 3
    prompts = [[sample["prompt"] for sample in line["samples"]] for line in found]
    assert prompts[0] == prompts[1] == prompts[2] and len(set(prompts[0])) == count
    assert any(sample["text"] for line in found for sample in line["samples"])
    assert all(sample["reference"] for line in found for sample in line["samples"])


@pytest.mark.parametrize("name", ["stage_0", "stage_1_ranks", "stage_3_ranks", "stage_3_one_prompt", "offload"])
def test_ranks_and_stages_write_the_same(runs: Path, name: str) -> None:
    """Would catch prompts that are mixed up between ranks, and weights that were not gathered."""
    for line, plain in zip(lines(runs / name), lines(runs / "plain"), strict=True):
        assert line["samples"] == plain["samples"][: len(line["samples"])]


@pytest.mark.parametrize(
    ("name", "one"), [("t5_stage_3", "t5"), ("adapters_stage_3", "adapters"), ("stage_3_many", "many")]
)
def test_other_kinds_write_the_same_on_two_ranks(runs: Path, name: str, one: str) -> None:
    assert lines(runs / name) == lines(runs / one)


def test_the_last_samples_are_those_of_the_saved_student(runs: Path, tiny_model: Path) -> None:
    """Without held-out examples, prompts are those of the training examples."""
    run = runs / "without_heldout"
    store = LogitStore.open(str(runs / "store"))
    records = [record.tokenized for record in store[[0, 1, 2]]]
    prompts = [record.tokens[: record.prompt_length] for record in records]
    model, tokenizer = load_student(str(run / "model"), VOCAB), AutoTokenizer.from_pretrained(tiny_model)
    texts = generate_texts(model, tokenizer, prompts, 12, 3)
    assert [sample["text"] for sample in lines(run)[-1]["samples"]] == texts
    first = tokenizer.decode(records[0].tokens[records[0].prompt_length :], skip_special_tokens=True)
    assert lines(run)[0]["samples"][0]["reference"] == first
    assert lines(run)[0]["samples"][0]["prompt"] == tokenizer.decode(prompts[0]), "with its special tokens"


@pytest.mark.parametrize(("name", "silent"), [("plain", "silent"), ("stage_3_ranks", "silent_stage_3")])
def test_samples_do_not_change_what_is_learned(runs: Path, name: str, silent: str) -> None:
    """Would catch a model that stays in another mode, and gradients or hooks that a generation leaves behind."""
    assert curve(runs / name) == curve(runs / silent)


def test_a_continued_run_repeats_no_samples(runs: Path) -> None:
    """Its first part ended after step 2, with samples of that end."""
    assert [line["step"] for line in lines(runs / "again")] == [0, 2, 3, 4]
    assert lines(runs / "again")[-1] == lines(runs / "plain")[-1]


def plan(folder: Path, store: Path, **options: Any) -> None:
    settings = settings_of(folder / "run", store, **options)
    plan_training(settings, OpenStores())


def test_prompts_of_a_file_need_no_responses(tmp_path: Path, tiny_model: Path) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 8)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"id": "1", "messages": [{"role": "user", "content": "say one"}]}) + "\n")
    plan(tmp_path, store, samples={"examples": prompts})


def test_prompts_without_positions_are_refused_before_the_run(tmp_path: Path, tiny_model: Path) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 8)
    model = {"config": {**settings_of(tmp_path, store).model.config, "max_position_embeddings": 40}}  # type: ignore[dict-item]
    plan(tmp_path, store, samples={"max_new_tokens": 33}, model=model)
    with pytest.raises(
        InputError, match=r"no positions for the first prompts of the examples of the job with .* = 37 tok"
    ):
        plan(tmp_path, store, samples={"max_new_tokens": 37}, model=model)


def test_a_classifier_writes_nothing(tmp_path: Path) -> None:
    classes = {"labels": ["a", "b"]}
    with pytest.raises(ValidationError, match=r"\[samples\] has no use for \[classes\]"):
        settings_of(tmp_path / "run", tmp_path / "store", classes=classes, samples={})


def test_a_plan_of_an_earlier_version_is_kept() -> None:
    """Its digest as the version before [model.options] and lora.quantise computed it."""
    job = {
        "output": "runs/x",
        "data": {"store": "runs/store"},
        "model": {"pretrained": "base", "lora": {"rank": 4}},
        "optimizer": {"lr": 0.001},
        "run": {"steps": 4},
    }
    digest = "035d12d9f0e0d89ba44b11263ae7e9010fdbd31b47e4b09bfe30656b99499d67"
    assert job_digest(TrainSettings.model_validate(job)) == digest
    job["model"] = {"pretrained": "base", "lora": {"rank": 4, "quantise": "nf4"}}
    assert job_digest(TrainSettings.model_validate(job)) != digest


def test_few_different_prompts_end_the_search(tmp_path: Path, tiny_model: Path) -> None:
    """Would catch a store that is read to its end."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 8)
    source = StoreSource(
        LogitStore.open(str(store)), DataSettings.model_validate({"store": str(store)}), LossSettings()
    )
    read: list[int] = []

    class Same:
        def __len__(self) -> int:
            return 10_000

        def read(self, examples: Sequence[int]) -> list[Window]:
            read.extend(examples)
            return source.read([0] * len(examples))

    vocabulary = Vocabulary(AutoTokenizer.from_pretrained(tiny_model), VOCAB)
    found = sample_prompts(SampleSettings(count=3), Same(), vocabulary, LlamaConfig())  # type: ignore[arg-type]
    assert len(found) == 1 and len(read) < 400
