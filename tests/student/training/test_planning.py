"""A job is planned once: ranks open each store once, and align, learn and test nothing again."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForCausalLM

import student.models.build
import student.tokenizers.aligner
import student.training.planning.inputs
from cache.errors import InputError, SpecMismatchError, StoreError
from cache.examples.files.jsonl import write_examples
from cache.store.logit_store import LogitStore
from cluster.training.driver import is_complete, make_plan, summary
from cluster.training.snapshot_pinning import pin_snapshots
from student.classification.source import ClassSource
from student.models.attention.implementations import STAND_IN, flash_stand_in
from student.training.planning.inputs import open_inputs
from student.training.planning.plan import TrainingPlan, job_digest, plan_folder, read_plan, sizes_file, write_plan
from student.training.planning.stores import OpenStores
from student.training.run_settings import RunSettings
from student.training.settings import TrainSettings
from tests.student.models.test_special_students import CLASSES, COMPACT, graded, store_of
from tests.student.training.ranks import LLAMA, TOPK, make_store, settings_of

CLASSIFIER = {"model": {"config": COMPACT}, "tokenizer": {"vocab_size": 300}, "classes": CLASSES}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each store was opened."""
    counts: Counter[str] = Counter()
    original = LogitStore.open.__func__  # type: ignore[attr-defined]

    def count(cls: type[LogitStore], uri: str, *arguments: Any, **options: Any) -> LogitStore:
        counts[Path(uri).name] += 1
        return original(cls, uri, *arguments, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(LogitStore, "open", classmethod(count))
    return counts


def test_a_driver_that_plans_loads_no_deepspeed() -> None:
    """It takes seconds, before every training. Ranks load it meanwhile."""
    code = "import sys, student.training.planning.planner; print('deepspeed' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "False"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the expensive parts of planning ran."""
    counts: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def wrapper(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, wrapper)

    count(student.tokenizers.aligner, "align")
    count(student.models.build, "require_known_head")
    count(student.training.planning.inputs, "refuse_unpackable")
    return counts


def plan_in_driver(settings: TrainSettings) -> tuple[TrainSettings, TrainingPlan]:
    """What the driver does before it starts ranks."""
    stores = OpenStores()
    settings = pin_snapshots(settings, stores)
    return settings, make_plan(settings, stores)


def as_sent(plan: TrainingPlan) -> TrainingPlan:
    """The plan after its way to a rank as JSON."""
    return TrainingPlan(**json.loads(json.dumps({name: getattr(plan, name) for name in plan.__dataclass_fields__})))


def test_each_store_is_opened_once_in_the_driver_and_once_in_a_rank(
    tmp_path: Path, tiny_model: Path, opened: Counter[str], calls: Counter[str]
) -> None:
    """Also one that is in a mixture twice, and the held-out one."""
    for name, seed in (("a", 0), ("b", 1), ("held", 2)):
        make_store(tmp_path / name, tiny_model, TOPK, 6, seed)
    mixture = [{"store": str(tmp_path / name)} for name in ("a", "b", "a")]
    settings = settings_of(
        tmp_path / "run",
        tmp_path / "a",
        data={"mixture": mixture, "pack_to": 40},
        heldout={"store": str(tmp_path / "held")},
    )
    settings, plan = plan_in_driver(settings)
    assert opened == {"a": 1, "b": 1, "held": 1}
    assert calls == {"require_known_head": 1, "refuse_unpackable": 1}
    assert [item.snapshot for item in settings.data.stores] == [1, 1, 1]
    assert [Path(store["uri"]).name for store in plan.stores] == ["a", "b", "a"]
    opened.clear()
    inputs = open_inputs(settings, as_sent(plan), OpenStores())
    assert opened == {"a": 1, "b": 1, "held": 1}
    assert calls == {"require_known_head": 1, "refuse_unpackable": 1}, "a rank tests nothing again"
    assert inputs.examples == 18 and inputs.heldout is not None


def test_a_store_of_another_tokenizer_is_aligned_once(
    tmp_path: Path, tiny_model: Path, opened: Counter[str], calls: Counter[str]
) -> None:
    from student.tokenizers.bpe import learn_tokenizer, save_tokenizer

    texts = graded()
    store = store_of(tmp_path / "store", tiny_model, texts, 0)
    save_tokenizer(learn_tokenizer(texts, 300), tmp_path / "other")
    cross = {"data": {"align": "cross_tokenizer"}, "tokenizer": {"path": str(tmp_path / "other")}}
    settings, plan = plan_in_driver(settings_of(tmp_path / "run", store, **cross))
    assert calls["align"] == len(texts) and opened == {"store": 1}
    assert "student tokens" in plan.notes
    calls.clear()
    inputs = open_inputs(settings, as_sent(plan), OpenStores())
    assert not calls["align"] and opened == {"store": 2}
    source: Any = inputs.sources["train"]
    windows = inputs.batches.source.read(range(3))  # type: ignore[attr-defined]
    assert [len(window) for window in windows] == source.tokens[:3].tolist()
    assert str(source.store.shares) == plan.notes


@pytest.mark.parametrize("of", ["store", "examples"])
def test_a_classifier_reads_its_store_in_the_plan_alone(
    tmp_path: Path, tiny_model: Path, opened: Counter[str], of: str
) -> None:
    store_of(tmp_path / "graded", tiny_model, graded(), 2, sure=0.9)
    write_examples(tmp_path / "graded.jsonl", graded())
    fields = settings_of(tmp_path / "run", tmp_path / "graded", **CLASSIFIER).model_dump(exclude_unset=True)
    if of == "examples":
        fields |= {"data": {"examples": tmp_path / "graded.jsonl"}, "loss": {"objective": "hard_label"}}
    settings, plan = plan_in_driver(TrainSettings.model_validate(fields))
    assert opened == ({"graded": 1} if of == "store" else {})
    assert plan.tokenizer is None and (plan_folder(settings) / "tokenizer").is_dir()
    opened.clear()
    source = open_inputs(settings, as_sent(plan), OpenStores()).sources["train"]
    assert not opened and isinstance(source, ClassSource) and len(source) == 40
    assert [example.id for example in source.examples] == [str(i) for i in range(40)]
    assert (source.teacher is None) == (of == "examples")


def test_saved_classes_are_those_that_were_read(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    from student.classification.settings import ClassSettings

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    store = LogitStore.open(str(store_of(tmp_path / "graded", tiny_model, graded(), 2, sure=0.9)))
    source = ClassSource.from_store(store, ClassSettings.model_validate(CLASSES), tokenizer, tokenizer)
    source.save(tmp_path / "classes.npz")
    loaded = ClassSource.load(tmp_path / "classes.npz")
    for name in ("names", "examples", "left_out", "unmatched", "truncated"):
        assert getattr(loaded, name) == getattr(source, name), name
    assert np.array_equal(loaded.labels, source.labels) and loaded.labels.dtype == source.labels.dtype
    assert all(np.array_equal(a, b) for a, b in zip(loaded.tokens, source.tokens, strict=True))
    assert source.teacher is not None and loaded.teacher is not None
    for name in source.teacher.__dataclass_fields__:
        ours, theirs = getattr(loaded.teacher, name), getattr(source.teacher, name)
        assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype, name


def test_a_learned_tokenizer_is_learned_once_and_saved_unchanged(tmp_path: Path) -> None:
    """Would catch facts of the folder in the tokenizer of the saved student."""
    from student.tokenizers.bpe import learn_tokenizer, save_tokenizer

    write_examples(tmp_path / "examples.jsonl", graded())
    fields = settings_of(tmp_path / "run", tmp_path, loss={"objective": "hard_label"}).model_dump(exclude_unset=True)
    fields |= {"data": {"examples": tmp_path / "examples.jsonl"}, "tokenizer": {"vocab_size": 300}}
    settings, plan = plan_in_driver(TrainSettings.model_validate(fields))
    inputs = open_inputs(settings, as_sent(plan), OpenStores())
    save_tokenizer(inputs.tokenizer, tmp_path / "loaded")
    save_tokenizer(learn_tokenizer(graded(), 300), tmp_path / "learned")
    for file in (tmp_path / "learned").iterdir():
        assert (tmp_path / "loaded" / file.name).read_bytes() == file.read_bytes(), file.name
    assert plan.vocab_size == len(inputs.tokenizer)


def test_a_run_that_continues_keeps_its_plan(tmp_path: Path, tiny_model: Path) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    settings, plan = plan_in_driver(settings_of(tmp_path / "run", store))
    assert read_plan(settings) == plan
    marker = sizes_file(plan_folder(settings), "train")
    marker.touch()
    plan_in_driver(settings)
    assert not marker.exists(), "a run without a step is planned again"
    marker.touch()
    (settings.output / "checkpoints").mkdir()
    (settings.output / "checkpoints" / "progress.json").write_text('{"step": 2}')
    more_ranks = settings_of(tmp_path / "run", store, run={"ranks": 2, "steps": 9, "micro_batch_size": 1})
    assert plan_in_driver(more_ranks)[1] == plan and marker.exists()
    other_model = settings_of(tmp_path / "run", store, model={"config": {**LLAMA, "hidden_size": 16}})
    assert read_plan(other_model) is None
    (plan_folder(settings) / "plan.json").write_text('{"job": "of another version"}')
    assert read_plan(settings) is None


@pytest.mark.parametrize("is_learned", [True, False])
def test_a_tokenizer_that_changed_after_the_plan_is_refused(tmp_path: Path, is_learned: bool) -> None:
    """By a rank, and by a driver that continues a run. Would catch a student that reads other ids than it learned."""
    from student.tokenizers.bpe import learn_tokenizer, save_tokenizer

    write_examples(tmp_path / "examples.jsonl", graded())
    fields = settings_of(tmp_path / "run", tmp_path, loss={"objective": "hard_label"}).model_dump(exclude_unset=True)
    fields |= {"data": {"examples": tmp_path / "examples.jsonl"}, "tokenizer": {"vocab_size": 300}}
    folder = tmp_path / "run" / "plan" / "tokenizer"
    if not is_learned:
        folder = tmp_path / "tokenizer"
        save_tokenizer(learn_tokenizer(graded(), 300), folder)
        fields["tokenizer"] = {"path": str(folder)}
    settings, plan = plan_in_driver(TrainSettings.model_validate(fields))
    (settings.output / "checkpoints").mkdir()
    (settings.output / "checkpoints" / "progress.json").write_text('{"step": 1}')
    assert plan_in_driver(settings)[1] == plan
    document = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    first, second = list(vocabulary)[100:102]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "tokenizer.json").write_text(json.dumps(document))
    message = f"{folder}.* has changed since the job was planned; restore it"
    with pytest.raises(SpecMismatchError, match=message):
        open_inputs(settings, as_sent(plan), OpenStores())
    with pytest.raises(SpecMismatchError, match=message):
        plan_in_driver(settings)


@pytest.mark.parametrize("content", ["", '{"job": "', "[]", "3", "null", "\x00\x00"])
def test_a_damaged_plan_counts_as_no_plan(tmp_path: Path, content: str) -> None:
    settings = settings_of(tmp_path / "run", tmp_path)
    plan = TrainingPlan(job_digest(settings), None, "", 1, 1, 9, [])
    (tmp_path / "draft").mkdir()
    write_plan(settings, plan, tmp_path / "draft")
    assert read_plan(settings) == plan
    (plan_folder(settings) / "plan.json").write_text(content)
    assert read_plan(settings) is None


def test_a_new_plan_removes_only_files_of_the_earlier_plan(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "run", tmp_path)
    folder = plan_folder(settings)
    folder.mkdir(parents=True)
    for name in ("notes.txt", "plan.json", "train-sizes.npz", "heldout-classes.npz"):
        (folder / name).write_text(name)
    (tmp_path / "draft" / "tokenizer").mkdir(parents=True)
    write_plan(settings, TrainingPlan(job_digest(settings), None, "", 1, 1, 9, []), tmp_path / "draft")
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "plan.json", "tokenizer"}
    assert (folder / "notes.txt").read_text() == "notes.txt"


@pytest.mark.parametrize("of", ["loss", "model"])
def test_a_job_that_cannot_work_leaves_no_plan(tmp_path: Path, tiny_model: Path, of: str) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    wrong: dict[str, Any] = (
        {"loss": {"temperature": 3.0}} if of == "loss" else {"model": {"config": {"model_type": "x"}}}
    )
    with pytest.raises((InputError, StoreError)):
        plan_in_driver(settings_of(tmp_path / "run", store, **wrong))
    assert not (tmp_path / "run").exists()


def test_a_model_that_mixes_packed_examples_is_refused_in_the_plan(tmp_path: Path, tiny_model: Path) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    mamba = {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}
    settings = settings_of(tmp_path / "run", store, model={"config": mamba}, data={"pack_to": 40})
    with pytest.raises(InputError, match=r"'mamba' does not keep packed examples apart .* leave out data.pack_to"):
        plan_in_driver(settings)
    assert not (tmp_path / "run").exists()


def test_a_run_that_continues_with_more_packed_rows_is_tested_with_them(tmp_path: Path, tiny_model: Path) -> None:
    """Some attention keeps examples apart in one row only. Would catch a plan that is kept from a run of one row."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    model = {"config": LLAMA, "attn_implementation": STAND_IN}
    one_row, two_rows = (
        settings_of(tmp_path / "run", store, model=model, data={"pack_to": 40}, run={"micro_batch_size": rows})
        for rows in (1, 2)
    )
    with flash_stand_in(AutoModelForCausalLM.from_config(AutoConfig.for_model(**LLAMA))):
        pass  # makes the attention known to Transformers
    plan_in_driver(one_row)
    (one_row.output / "checkpoints").mkdir()
    (one_row.output / "checkpoints" / "progress.json").write_text('{"step": 2}')
    plan_in_driver(one_row)
    with pytest.raises(InputError, match=r"one row only .* set run\.micro_batch_size = 1"):
        plan_in_driver(two_rows)


def test_flash_attention_is_planned_without_a_gpu(tmp_path: Path, tiny_model: Path) -> None:
    """By what reaches the attention of a model. Several rows, float32 and a model without a choice are refused."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    flash = {"attn_implementation": "flash_attention_2"}
    run = {"precision": "bf16", "micro_batch_size": 1}
    job = {"model": {"config": LLAMA, **flash}, "data": {"pack_to": 40}}
    plan_in_driver(settings_of(tmp_path / "run", store, run=run, **job))
    with pytest.raises(InputError, match=r"model\.attn_implementation = 'flash_attention_2': FlashAttention2 has been"):
        open_inputs(*plan_in_driver(settings_of(tmp_path / "run", store, run=run, **job)), OpenStores())
    with pytest.raises(ValidationError, match=r"of one row only; set run\.micro_batch_size = 1"):
        settings_of(tmp_path / "run", store, run={**run, "micro_batch_size": 2}, **job)
    with pytest.raises(ValidationError, match=r"needs run\.precision = \"bf16\""):
        settings_of(tmp_path / "run", store, **job)
    bloom = {"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2}
    with pytest.raises(InputError, match="'flash_attention_2': model type 'bloom' has no such attention"):
        plan_in_driver(settings_of(tmp_path / "run", store, run=run, **{**job, "model": {"config": bloom, **flash}}))


def test_defaults_follow_the_machine_and_the_batch() -> None:
    assert RunSettings(steps=1).ranks_for(0) == 1
    assert RunSettings(steps=1, batch_size=12).ranks_for(8) == 6
    assert RunSettings(steps=1, batch_size=12, micro_batch_size=3).ranks_for(8) == 4
    assert RunSettings(steps=1, ranks=2).ranks_for(8) == 2
    for batch_size in (1, 7, 32, 48, 50, 64, 97):
        run = RunSettings(steps=1, batch_size=batch_size)
        micro = run.micro_batch_of(1)
        assert micro <= 32 and batch_size % micro == 0
    assert RunSettings(steps=1, batch_size=64).micro_batch_of(2) == 32
    with pytest.raises(InputError, match="cannot be divided among 3 ranks"):
        RunSettings(steps=1, batch_size=64).micro_batch_of(3)
    packed = RunSettings(steps=1, batch_size=50)
    assert (packed.ranks_for(8, 4096), packed.micro_batch_of(8, 4096)) == (8, 1), "packed rows can always be divided"


def test_the_outcome_tells_early_stopping_and_losses() -> None:
    result = {"steps": 30, "planned_steps": 200, "stopped_early": True, "best_step": 20, "best_loss": 1.25}
    result |= {"last_loss": 0.5, "parameters": 1234, "seconds": 9.0, "tokens_per_s": 1000.0, "data_wait_share": 0.0}
    line = summary(result)
    for part in (
        "30 of 200 steps (stopped early)",
        "best held-out loss 1.2500 at step 20",
        "last training loss 0.5000",
    ):
        assert part in line


def test_raised_steps_continue_a_finished_run(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, tmp_path, run={"steps": 8})
    assert not is_complete({"steps": 4, "examples": 9, "stopped_early": False}, settings)
    assert is_complete({"steps": 8, "examples": 9}, settings)
    assert is_complete({"steps": 4, "examples": 9, "stopped_early": True}, settings)
    epochs = settings.model_copy(update={"run": RunSettings(epochs=2.5, batch_size=8)})
    assert is_complete({"steps": 10, "examples": 32}, epochs)
    assert not is_complete({"steps": 9, "examples": 32}, epochs)


def test_a_shorter_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "progress.json").write_text('{"step": 9}')
    with pytest.raises(InputError, match=r"run\.steps = 8: .* has a run of 9 steps already"):
        is_complete({"steps": 9, "examples": 9}, settings_of(tmp_path, tmp_path, run={"steps": 8}))


def test_epochs_are_passes_over_the_examples() -> None:
    assert RunSettings(epochs=3, batch_size=8).with_steps(19, 190).total_steps == 8, "57 examples in 8 steps of 8"
    assert RunSettings(steps=5).with_steps(19, 190).total_steps == 5
    for given in ({}, {"steps": 3, "epochs": 1.0}):
        with pytest.raises(ValueError, match="exactly one of 'steps' and 'epochs'"):
            RunSettings(**given)
