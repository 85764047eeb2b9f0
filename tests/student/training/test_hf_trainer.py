"""A step of the Trainer of Transformers equals one of our own loop, for any split into micro-batches and ranks."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from cache.errors import InputError, StoreError
from cache.examples.tokenizers import tokenizer_digest
from cache.rows.record import Record
from cache.rows.sparse_targets import empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.data.collate import collate
from student.data.torch_dataset import StoreDataset
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.losses.settings import LossSettings, TermSettings
from student.losses.weighted_objectives import WeightedObjectives
from student.models.kinds.causal import PackedLayout
from student.models.loss_model import LossModel
from student.models.rows.layout import Layout
from student.training.hf_trainer import DistillationCollator, DistillationLoss, fused_student, objectives_for
from tests.records import VOCAB

ROOT = Path(__file__).resolve().parents[3]
MIX = LossSettings(hard_label_weight=0.3)
# Sums of weights that are neither whole nor in proportion to the rows.
UNEVEN = LossSettings.model_validate({"average": "examples", "segments": {"response": 0.3}})
Gradients = dict[str, Tensor]


@pytest.fixture
def write_store(
    tmp_path: Path, tiny_model: Path, make_records: Callable[..., list[Record]]
) -> Callable[[str, int], str]:
    """A store of eight examples, which have 6 or 3 rows each."""

    def write(name: str, seed: int) -> str:
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        ids, targets = tokenizer_digest(tokenizer), TargetSpec("topk", 16)
        spec = StoreSpec(str(tiny_model), "w", ids, "c", VOCAB, len(tokenizer), "float32", targets, None)
        storage = LocalStorage(tmp_path / name)
        create_store(storage, spec)
        write_unit(storage, spec, [*make_records(5, seed), *make_records(3, seed + 1, prompt=7, response=3)])
        take_snapshot(storage)
        return str(storage.root)

    return write


@pytest.fixture
def store(write_store: Callable[[str, int], str]) -> str:
    return write_store("store", 0)


def student() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, tie_word_embeddings=True, initializer_range=0.2, **sizes))


def direct(
    model: Any, dataset: StoreDataset, objectives: WeightedObjectives, examples: slice = slice(None)
) -> tuple[Tensor, Gradients]:
    """Loss and gradient of one step of our own loop."""
    batch = collate(dataset.store.read(range(len(dataset))[examples]), objectives)
    loss = LossModel(model, objectives)(batch, sum_coefficients(objectives, sum_row_weights([batch]))).objective
    model.zero_grad()
    loss.backward()
    return loss.detach(), gradients(model)


def gradients(model: Any) -> Gradients:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Keeps the gradient of the last step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.gradients = gradients(rest["model"])


def trainer_for(
    dataset: StoreDataset,
    loss: LossSettings,
    output: str,
    fused: bool = True,
    layout: Layout | None = None,
    **arguments: Any,
) -> tuple[Trainer, Recorder]:
    objectives = objectives_for(dataset.store, loss)
    model = fused_student(student(), objectives) if fused else student()
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, "use_cpu": True}
    recorder = Recorder()
    trainer = Trainer(
        model,
        TrainingArguments(output, max_steps=1, max_grad_norm=0, **quiet, **arguments),
        data_collator=DistillationCollator(objectives, layout),
        train_dataset=dataset,
        eval_dataset=dataset,
        compute_loss_func=None if fused else DistillationLoss(objectives),
        callbacks=[recorder],
    )
    return trainer, recorder


def step(*args: Any, **options: Any) -> tuple[float, Gradients]:
    trainer, recorder = trainer_for(*args, **options)
    trainer.train()
    return trainer.state.log_history[0]["loss"], recorder.gradients


def assert_same(ours: tuple[Any, Gradients], wanted: tuple[Any, Gradients]) -> None:
    assert float(ours[0]) == pytest.approx(float(wanted[0]), rel=1e-5)
    assert ours[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def by_definition(model: Any, store: LogitStore, shift: int) -> float:
    """MIX from the model's log-probabilities and the targets of each example, `shift` rows further."""
    rows = []
    for record in store:
        log_q = (
            model(input_ids=torch.from_numpy(record.tokenized.tokens.astype(np.int64))[None]).logits[0].log_softmax(-1)
        )
        targets = record.targets
        for row in np.flatnonzero(targets.counts):
            entries = slice(targets.offsets[row], targets.offsets[row + 1])
            seen = log_q[row + shift]
            log_p = torch.from_numpy(targets.logprobs[entries])
            on_ids = seen[torch.from_numpy(targets.ids[entries].astype(np.int64))]
            tail = float(targets.log_tail[row])
            kl = (log_p.exp() * (log_p - on_ids)).sum() + np.exp(tail) * (tail - torch.log1p(-on_ids.exp().sum()))
            rows.append(0.7 * kl - 0.3 * seen[int(record.tokenized.tokens[row + 1])])
    return float(torch.stack(rows).mean())


@torch.no_grad()
def test_the_loss_is_that_of_its_definition_and_shifted_targets_have_another(store: str, tmp_path: Path) -> None:
    dataset = StoreDataset(store)
    for fused in (True, False):
        trainer, _ = trainer_for(dataset, MIX, str(tmp_path), fused, per_device_eval_batch_size=8)
        found = trainer.evaluate()["eval_loss"]
        assert found == pytest.approx(by_definition(trainer.model, dataset.store, 0), rel=1e-5)
        for shift in (-1, 1):
            assert abs(found - by_definition(trainer.model, dataset.store, shift)) > 1e-3 * found


@pytest.mark.parametrize("loss", [MIX, UNEVEN], ids=["mix", "uneven"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "logits"])
def test_accumulation_changes_nothing(store: str, tmp_path: Path, loss: LossSettings, fused: bool) -> None:
    dataset = StoreDataset(store)
    wanted = direct(student(), dataset, objectives_for(dataset.store, loss))
    whole = {"per_device_train_batch_size": 8}
    pieces = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert_same(step(dataset, loss, str(tmp_path), fused, **whole), wanted)
    assert_same(step(dataset, loss, str(tmp_path), fused, **pieces), wanted)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "logits"])
def test_packing_changes_nothing(store: str, tmp_path: Path, fused: bool) -> None:
    dataset = StoreDataset(store)
    wanted = direct(student(), dataset, objectives_for(dataset.store, MIX))
    packed = {"layout": PackedLayout(24), "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    assert_same(step(dataset, MIX, str(tmp_path), fused, **packed), wanted)


def test_workers_change_nothing(store: str, tmp_path: Path) -> None:
    dataset = StoreDataset(store)
    wanted = direct(student(), dataset, objectives_for(dataset.store, MIX))
    batches = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "dataloader_num_workers": 2}
    assert_same(step(dataset, MIX, str(tmp_path), **batches), wanted)


RANK = """
import sys, torch
from student.data.torch_dataset import StoreDataset
from tests.student.training.test_hf_trainer import UNEVEN, step
found = step(StoreDataset(sys.argv[1]), UNEVEN, sys.argv[2], per_device_train_batch_size=2,
             gradient_accumulation_steps=2, ddp_backend="gloo")
torch.distributed.get_rank() or torch.save(found, sys.argv[2] + "/found.pt")
"""


@pytest.mark.slow
def test_ranks_change_nothing(store: str, tmp_path: Path) -> None:
    """A count that each rank took for itself, or that Trainer rounded, would weigh their rows differently."""
    dataset = StoreDataset(store)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launcher, sys.executable, "-c", RANK, store, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(torch.load(tmp_path / "found.pt"), direct(student(), dataset, objectives_for(dataset.store, UNEVEN)))


@pytest.mark.parametrize("loss", [MIX, UNEVEN], ids=["mix", "uneven"])
def test_evaluation_weighs_the_mean_of_a_batch_by_its_examples(store: str, tmp_path: Path, loss: LossSettings) -> None:
    dataset = StoreDataset(store)
    objectives = objectives_for(dataset.store, loss)
    trainer, _ = trainer_for(dataset, loss, str(tmp_path), per_device_eval_batch_size=3)
    found = trainer.evaluate()["eval_loss"]
    parts = [float(direct(student(), dataset, objectives, slice(start, start + 3))[0]) for start in (0, 3, 6)]
    assert found == pytest.approx(np.average(parts, weights=[3, 3, 2]), rel=1e-5)
    if objectives.average_examples:
        assert found == pytest.approx(float(direct(student(), dataset, objectives)[0]), rel=1e-5)


def test_the_example_learns_and_leaves_a_plain_model(write_store: Callable[[str, int], str], tmp_path: Path) -> None:
    main = runpy.run_path(str(ROOT / "docs" / "trainer_example.py"))["main"]
    output = str(tmp_path / "student")
    quiet = {"use_cpu": True, "disable_tqdm": True, "save_steps": 10}
    trainer, found = main(write_store("store", 0), write_store("heldout", 7), output, 12, **quiet)
    curve = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(curve) == 12
    assert curve[-1] < 0.8 * curve[0]
    assert np.isfinite(found)
    AutoTokenizer.from_pretrained(output)
    assert (Path(output) / "checkpoint-10").is_dir()
    ids = torch.arange(9)[None]
    saved = AutoModelForCausalLM.from_pretrained(output)
    torch.testing.assert_close(saved(input_ids=ids).logits, trainer.model.eval()(input_ids=ids).logits)


def test_a_fused_student_is_otherwise_the_model_that_it_was(store: str) -> None:
    dataset = StoreDataset(store)
    objectives = objectives_for(dataset.store, MIX)
    plain, fused = student(), fused_student(student(), objectives)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    assert fused.training == plain.training
    ids = torch.arange(9)[None]
    assert torch.equal(fused(input_ids=ids, labels=ids).loss, plain(input_ids=ids, labels=ids).loss)
    batch = DistillationCollator(objectives)(dataset.store.read(range(8)))
    other = deepcopy(fused)
    torch.nn.init.zeros_(other.lm_head.weight)
    options = {"num_items_in_batch": batch["labels"].count}
    assert other(**batch, **options)["loss"] != fused(**batch, **options)["loss"], "the copy runs the original"


def test_adapters_come_after(store: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    dataset = StoreDataset(store)
    trainer, _ = trainer_for(dataset, MIX, str(tmp_path), per_device_eval_batch_size=8)
    wanted = trainer.evaluate()["eval_loss"]
    adapted = get_peft_model(trainer.model, LoraConfig(r=2, target_modules="all-linear"))
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=8,
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        use_cpu=True,
        learning_rate=1e-2,
    )
    adapted_trainer = Trainer(adapted, arguments, data_collator=trainer.data_collator, train_dataset=dataset)
    adapted_trainer.train()
    curve = [line["loss"] for line in adapted_trainer.state.log_history if "loss" in line]
    assert curve[0] == pytest.approx(wanted, rel=1e-5)
    assert curve[-1] < 0.95 * curve[0]
    with pytest.raises(InputError, match="before adapters"):
        fused_student(adapted, objectives_for(dataset.store, MIX))


def test_labels_move_with_the_batch_and_keep_their_precision(store: str) -> None:
    dataset = StoreDataset(store)
    batch = DistillationCollator(objectives_for(dataset.store, MIX))([dataset[0]])
    moved = send_to_device(batch, torch.device("meta"))["labels"]
    assert moved.count.is_meta
    assert moved.batch.rows.is_meta
    assert moved.batch.log_p[0].is_meta
    assert moved.batch.log_p[0].dtype == torch.float32


def test_what_one_count_cannot_normalise_is_refused(store: str) -> None:
    dataset = StoreDataset(store)
    terms = [{"objective": "forward_kl"}, {"objective": "hard_label", "segments": {"prompt": 1}}]
    with pytest.raises(InputError, match="different rows"):
        DistillationCollator(objectives_for(dataset.store, LossSettings.model_validate({"terms": terms})))
    objectives = objectives_for(dataset.store, MIX)
    collator = DistillationCollator(objectives)
    untaught = replace(dataset[0], targets=empty_targets(len(dataset[0])))
    with pytest.raises(InputError, match="no teacher"):
        collator([dataset[1], untaught])
    model = fused_student(student(), objectives)
    batch = collator([dataset[0]])
    with pytest.raises(InputError, match="num_items_in_batch"):
        model(**batch)
    with pytest.raises(InputError, match="DataParallel"):
        model(**batch, num_items_in_batch=batch["labels"].count.expand(2, 1))
    with pytest.raises(InputError, match="forward pass is not that of its class"):
        fused_student(model, objectives)


def test_objectives_are_those_that_the_stores_allow(store: str, tmp_path: Path) -> None:
    opened = LogitStore.open(store)
    with pytest.raises(InputError, match="example_weight"):
        objectives_for(opened, LossSettings(example_weight="share"))
    with pytest.raises(InputError, match=r"terms\[\]\.where"):
        objectives_for(opened, LossSettings(terms=(TermSettings(objective="forward_kl", where={"task": "explain"}),)))
    with pytest.raises(StoreError, match="temperature"):
        objectives_for(opened, LossSettings(temperature=2))
    estimates = replace(opened.spec, targets=TargetSpec("sampled", draws=16))
    create_store(LocalStorage(tmp_path / "estimates"), estimates)
    with pytest.raises(StoreError, match="these differ"):
        objectives_for(opened, LossSettings(), LogitStore.open(str(tmp_path / "estimates"), unpinned=True))
