"""Held-out metrics equal those of dense logits, computed one token at a time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import student.evaluation.heldout_metrics
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.data.settings import DataSettings
from student.data.sources import StoreSource
from student.evaluation.calibration import BINS
from student.evaluation.heldout_metrics import HeldoutMetrics, evaluate_targets
from student.losses.settings import LossSettings
from tests.cache.rows.rows import VOCAB, log_softmax, sparse, store_spec
from tests.student.training.ranks import LLAMA, make_record

SIZES = [(4, 6), (7, 3), (3, 9), (5, 4), (6, 8)]
TARGETS = {
    "topk": TargetSpec("topk", 16),
    "nucleus": TargetSpec("nucleus", 40, mass=0.9),
    "threshold": TargetSpec("threshold", threshold=0.05, entropy=True),
    "threshold without entropies": TargetSpec("threshold", threshold=0.05),
    "sampled": TargetSpec("sampled", draws=20, entropy=True),
    "texts alone": TargetSpec("topk", 0),
}
MODELS: dict[str, dict[str, Any]] = {
    # Sharp enough that confidences fill many bins.
    "llama": {**LLAMA, "initializer_range": 0.5},
    "gemma2": {
        **LLAMA,
        "model_type": "gemma2",
        "head_dim": 16,
        "final_logit_softcapping": 12.0,
        "initializer_range": 0.5,
    },
    "t5": {"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "decoder_start_token_id": 0},
}


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**{"vocab_size": VOCAB, **MODELS[name]})
    kind = AutoModelForSeq2SeqLM if name == "t5" else AutoModelForCausalLM
    return kind.from_config(config, dtype=torch.float32).eval()


def taught(model: Any, record: Record, targets: TargetSpec, rng: np.random.Generator, noise: float) -> Record:
    """A record with half of its tokens as the model would choose them, and the model's own laws, flatter and noisy."""
    tokens = record.tokenized.tokens.copy()
    prompt = record.tokenized.prompt_length
    for j in range(prompt, len(tokens)):
        if rng.random() < 0.5:
            tokens[j] = whole_logits(model, replace(record.window, tokens=tokens))[j - 1].argmax()
    tokenized = replace(record.tokenized, tokens=tokens)
    logits = whole_logits(model, replace(record.window, tokens=tokens)).numpy()
    logits = logits[prompt - 1 : len(tokens) - 1]
    if noise:
        logits = logits * rng.choice([0.3, 1.0], (len(logits), 1)) + rng.normal(size=logits.shape) * noise
    said = sparse(rng, log_softmax(logits), targets)
    rows = concatenate([empty_targets(prompt - 1), said, empty_targets(1)]) if targets.max_entries else record.targets
    return replace(record, key=tokenized.key, tokenized=tokenized, targets=rows)


@pytest.fixture
def open_source(tmp_path: Path) -> Callable[..., StoreSource]:
    def make(name: str, model: Any, noise: float = 1.0) -> StoreSource:
        targets = TARGETS[name]
        rng, storage, spec = np.random.default_rng(0), LocalStorage(tmp_path / "store"), store_spec(targets)
        create_store(storage, spec)
        records = [make_record(rng, str(i), *size, targets) for i, size in enumerate(SIZES)]
        write_unit(storage, spec, [taught(model, record, targets, rng, noise) for record in records])
        take_snapshot(storage)
        data = DataSettings(store=str(storage.root))
        return StoreSource(LogitStore.open(str(storage.root)), data, LossSettings(objective="hard_label"))

    return make


def whole_logits(model: Any, window: Window) -> torch.Tensor:
    """float64 [tokens, vocabulary]; row j speaks of token j + 1."""
    tokens = torch.from_numpy(window.tokens.astype(np.int64))[None]
    prompt = int((window.segments == 0).sum())
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            written = model(input_ids=tokens[:, :prompt], labels=tokens[:, prompt:]).logits[0]
            return torch.cat([torch.zeros(prompt - 1, VOCAB), written]).double()
        return model(tokens).logits[0].double()  # type: ignore[no-any-return]


def directly(model: Any, source: StoreSource) -> HeldoutMetrics:
    """Row by row in float64."""
    form, losses, kls, agree, mass, confidences, hits = source.form.kind, [], [], [], [], [], []
    for window in source.read(range(len(source))):
        q_rows = whole_logits(model, window).softmax(-1).numpy()
        for j in np.flatnonzero(window.segments[1:] != 0):
            q, target, token = q_rows[j], window.targets.rows(j, j + 1), int(window.tokens[j + 1])
            losses.append(-np.log(q[token]))
            confidences.append(q.max())
            hits.append(q.argmax() == token)
            p, held = np.exp(target.logprobs.astype(np.float64)), q[target.ids]
            mass.append(held.sum())
            if form == "exact":
                tail = np.exp(float(target.log_tail[0]))
                kls.append((p * np.log(p / held)).sum() + tail * np.log(tail / (1 - held.sum())))
            elif form == "estimated" and target.entropy is not None:
                kls.append(-(p * np.log(held)).sum() - float(target.entropy[0]))
            exact = int(target.exact_counts[0])
            agree.append(exact > 0 and q.argmax() == target.ids[0])
    which = np.minimum((np.array(confidences) * BINS).astype(int), BINS - 1)
    gaps = [abs(sum(confidences[i] - hits[i] for i in np.flatnonzero(which == b))) for b in range(BINS)]
    return HeldoutMetrics(
        float(np.mean(losses)),
        float(np.mean(kls)) if kls else None,
        None if form == "none" or not source.store.spec.targets.has_exact else float(np.mean(agree)),
        float(sum(gaps) / len(hits)),
        None if form == "none" else float(np.mean(mass)),
        len(losses),
        0 if form == "none" else len(losses),
    )


@pytest.mark.parametrize("name", list(TARGETS))
@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("block", [4, 1000])
def test_metrics_equal_those_of_dense_logits(
    name: str, family: str, block: int, open_source: Callable[..., StoreSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch rows of another block, means over blocks, a sampled id taken for the teacher's best, a lost tail."""
    monkeypatch.setattr(student.evaluation.heldout_metrics, "block_rows", lambda width, device: block)
    model = model_of(family)
    source, seen = open_source(name, model), []
    found = evaluate_targets(model, source, 2, lambda done, total: seen.append((done, total)))
    wanted = directly(model, source)
    assert wanted.top1_agreement is None or 0 < wanted.top1_agreement < 1
    assert found.rows == wanted.rows == sum(response for _, response in SIZES)
    assert found.target_rows == wanted.target_rows
    for field in ("heldout_loss", "kl_to_teacher", "top1_agreement", "ece", "support_mass"):
        ours, theirs = getattr(found, field), getattr(wanted, field)
        assert (ours is None) == (theirs is None), field
        assert ours is None or ours == pytest.approx(theirs, rel=1e-4, abs=1e-6), field
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_a_student_equal_to_the_teacher_agrees_with_it(open_source: Callable[..., StoreSource]) -> None:
    """Would catch an agreement with the row before or after, which is about 1 in 500."""
    model = model_of("llama")
    found = evaluate_targets(model, open_source("topk", model, noise=0.0), 3, lambda done, total: None)
    assert found.top1_agreement == 1.0
    assert found.kl_to_teacher is not None and 0 <= found.kl_to_teacher < 1e-3, "the rounding of the store"
    assert found.ece > 0.05, "tokens of chance among those that it chose"
