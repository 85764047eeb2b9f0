"""A setting that has no effect in a job is refused by its name, and accepted in a job in which it has one."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cache.settings import Settings
from cluster.capture.settings import CaptureSettings
from cluster.evaluation.settings import EvaluateSettings, ExamplesSettings
from cluster.report.settings import ReportSettings
from cluster.runtime.job_file import load_job
from student.training.settings import TrainSettings

KINDS: dict[str, type[Settings]] = {
    "examples": ExamplesSettings,
    "capture": CaptureSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
    "report": ReportSettings,
}
BASE = {
    "examples": "output = 'o'\ntask.name = 'drug_editing'\n",
    "capture": "examples = 'e.jsonl'\nstore = 's'\nteacher.model = 'm'\n",
    "train": "output = 'o'\noptimizer.lr = 0.1\nrun.steps = 5\n",
    "evaluate": "output = 'o'\nstore = 's'\nmodels.a = 'm'\n",
    "report": "output = 'o'\ntitle = 't'\nstore = 's'\nheldout_store = 'h'\nevaluation = 'e'\ntrainings.a = 't'\n",
}
LLAMA, PRETRAINED = "model.config={model_type='llama'}", "model.pretrained=m"
STORE, FILE = "data.store=s", "data.examples=e.jsonl"
HARD = "loss.objective=hard_label"
CLASSES = "classes={labels=['a', 'b']}"
COMPACT = "model.config={model_type='logitbank_compact'}"
TASK = "task.name=drug_editing"
OPENAI = "engine={kind='endpoint', endpoint={api='openai', top_logprobs=5}}"
TEXT_ONLY = "engine={kind='endpoint', endpoint={api='openai', top_logprobs=0}}"
VLLM_SERVER = "engine={kind='endpoint', endpoint={api='vllm', base_url='http://h:1/v1', top_logprobs=5}}"
TWO_TERMS = "loss.terms=[{objective='jsd'}, {objective='hard_label'}]"
GENERATE = "generation.samples=1"

# (kind of job, setting, the rest of a job in which it has no effect, the rest of one in which it has one)
Case = tuple[str, str, list[str], list[str]]
CASES: list[Case] = [
    ("capture", "targets.mass=0.9", ["targets.mode=topk"], []),
    ("capture", "targets.threshold=0.1", ["targets.mode=nucleus", "targets.mass=0.9"], ["targets.mode=threshold"]),
    ("capture", "targets.temperatures=[2.0]", ["targets.mode=sampled"], ["targets.mass=0.9"]),
    ("capture", "targets.draws=9", ["targets.mode=topk"], []),
    ("capture", "targets.systematic=true", ["targets.k=4"], ["targets.draws=9"]),
    ("capture", "targets.systematic=false", ["targets.mode=topk"], []),
    ("capture", "targets.systematic=false", [OPENAI], ["engine.kind=transformers"]),
    ("capture", "targets.k=5", ["targets.mode=sampled", "targets.draws=9"], []),
    ("capture", "targets.step=0.1", ["targets.mode=sampled"], ["targets.mode=topk"]),
    ("capture", "targets.step=0.1", [], ["engine.reduction=public"]),
    ("capture", "targets.tail_step=0.3", ["targets.draws=9"], ["targets.threshold=0.1"]),
    ("capture", "targets.tail_step=0.3", [TEXT_ONLY], [OPENAI]),
    ("capture", "targets.k=5", [TEXT_ONLY], [OPENAI]),
    ("capture", "targets.of=all", ["score=false", GENERATE], []),
    ("capture", "engine.logits_mib=99", ["engine.reduction=public"], []),
    ("capture", "teacher.tokenizer=t", [], [OPENAI]),
    ("capture", "teacher.tokenizer=t", ["engine.kind=transformers"], [VLLM_SERVER]),
    ("capture", "teacher.quantization=fp8", ["engine.kind=transformers"], []),
    ("capture", "teacher.quantization=fp8", [OPENAI], []),
    ("capture", "teacher.dtype=float16", [VLLM_SERVER], []),
    ("capture", "teacher.lora_path=l", [OPENAI], []),
    ("capture", "teacher.truncation=left", [OPENAI], [VLLM_SERVER]),
    ("capture", "teacher.template_date='2026-01-01'", [OPENAI], [VLLM_SERVER]),
    ("capture", "teacher.chat_template_kwargs={a=1}", [OPENAI], [VLLM_SERVER]),
    ("capture", "generation.seed=1", [OPENAI], [VLLM_SERVER]),
    ("capture", "generation.seed=1", ["generation.temperature=0"], []),
    ("capture", "generation.top_p=0.5", ["generation.temperature=0"], []),
    ("capture", "generation.samples=4", ["generation.temperature=0"], []),
    ("capture", "generation.context=same", [], ["generation.template=step_by_step", "generation.answer_marker=A"]),
    ("capture", "generation.hint_template=hint", ["generation.keep=agreeing"], ["generation.keep=rationalize"]),
    ("train", "tokenizer.vocab_size=1000", [STORE, PRETRAINED], [FILE, HARD, LLAMA]),
    ("train", "tokenizer.vocab_size=1000", [STORE, LLAMA], [STORE, CLASSES, COMPACT]),
    ("train", "tokenizer.vocab_size=1000", ["data.mixture=[{store='a'}, {store='b'}]", LLAMA], [FILE, HARD, LLAMA]),
    ("train", "tokenizer.vocab_size=1000", [FILE, HARD, LLAMA, "tokenizer.path=t"], [FILE, HARD, LLAMA]),
    ("train", "tokenizer.vocab_size=1000", [FILE, HARD, PRETRAINED], [FILE, HARD, LLAMA]),
    (
        "train",
        "tokenizer.vocab_size=1000",
        [STORE, PRETRAINED, "data.align=cross_tokenizer"],
        [STORE, CLASSES, COMPACT],
    ),
    ("train", "data.origins=['scored']", [FILE, HARD, LLAMA, "tokenizer.path=t"], [STORE, LLAMA]),
    ("train", "data.origins=['scored']", ["data.teachers=[{store='a'}, {store='b'}]", LLAMA], [STORE, LLAMA]),
    ("train", "tokenizer.chat_template_kwargs={a=1}", [STORE, LLAMA], [FILE, HARD, LLAMA, "tokenizer.path=t"]),
    (
        "train",
        "tokenizer.chat_template_kwargs={a=1}",
        [STORE, CLASSES, COMPACT, "tokenizer.path=t"],
        [STORE, LLAMA, "tokenizer.path=t", "data.align=cross_tokenizer"],
    ),
    (
        "train",
        "tokenizer.trust_remote_code=true",
        [STORE, LLAMA],
        [STORE, PRETRAINED, "tokenizer.path=t", "data.align=cross_tokenizer"],
    ),
    ("train", "model.trust_remote_code=true", [STORE, LLAMA], [STORE, PRETRAINED]),
    ("evaluate", "trust_remote_code=true", [CLASSES], []),
    ("train", "data.snapshot=2", [FILE, HARD, LLAMA, "tokenizer.path=t"], [STORE, LLAMA]),
    ("train", "data.max_tokens=99", [STORE, CLASSES, COMPACT, "tokenizer.path=t"], [STORE, LLAMA]),
    ("train", "data.order=full", [STORE, CLASSES, COMPACT, "tokenizer.path=t"], [STORE, LLAMA]),
    ("train", "data.window_tokens=9999", [STORE, CLASSES, COMPACT, "tokenizer.path=t"], [FILE, HARD, PRETRAINED]),
    ("train", "data.window_tokens=9999", [STORE, LLAMA, "data.order=full"], [STORE, LLAMA]),
    ("train", "loss.segments={label=2.0}", [STORE, CLASSES, COMPACT, "tokenizer.path=t"], [STORE, LLAMA]),
    ("train", "loss.average=examples", [STORE, CLASSES, COMPACT, "tokenizer.path=t"], [STORE, LLAMA]),
    ("train", "loss.tail=renormalise", [STORE, CLASSES, COMPACT, "tokenizer.path=t"], [STORE, LLAMA]),
    ("train", "loss.tail=bucket", [STORE, LLAMA, HARD], [STORE, LLAMA]),
    ("train", "loss.temperature=2.0", [STORE, LLAMA, HARD], [STORE, LLAMA]),
    ("train", "loss.temperature=1.0", [STORE, LLAMA, HARD], [STORE, LLAMA]),
    ("train", "loss.beta=0.5", [STORE, LLAMA], [STORE, LLAMA, "loss.objective=jsd"]),
    ("train", "loss.objective=tvd", [STORE, LLAMA, TWO_TERMS], [STORE, LLAMA]),
    ("train", "loss.objective=forward_kl", [STORE, LLAMA, TWO_TERMS], [STORE, LLAMA]),
    ("train", "loss.hard_label_weight=0.5", [STORE, LLAMA, TWO_TERMS], [STORE, LLAMA]),
    (
        "train",
        "loss.segments={label=2.0}",
        [STORE, LLAMA, "loss.terms=[{objective='jsd', segments={label=3.0}}]"],
        [STORE, LLAMA, TWO_TERMS],
    ),
    ("train", "optimizer.final_lr_share=0.2", [STORE, LLAMA, "optimizer.schedule=constant"], [STORE, LLAMA]),
    (
        "train",
        "heldout.snapshot=1",
        [STORE, LLAMA, HARD, "heldout.examples=h.jsonl"],
        [STORE, LLAMA, "heldout.store=h"],
    ),
    (
        "train",
        "classes.at=label",
        [FILE, HARD, CLASSES, COMPACT, "tokenizer.path=t"],
        [STORE, CLASSES, COMPACT, "tokenizer.path=t"],
    ),
    (
        "train",
        "classes.min_covered=0.5",
        [FILE, HARD, CLASSES, COMPACT, "tokenizer.path=t"],
        [FILE, HARD, CLASSES, COMPACT, "tokenizer.path=t", "heldout.store=h"],
    ),
    ("train", "model.config.attention_dropout=0.1", [STORE, LLAMA], []),
    ("train", "model.config.dtype=bfloat16", [STORE, LLAMA], []),
    ("train", "model.config.torch_dtype=bfloat16", [STORE, LLAMA], []),
    ("train", "model.config.num_labels=3", [STORE, CLASSES, COMPACT, "tokenizer.path=t"], []),
    ("train", "model.lora={rank=3}", [STORE, LLAMA], [STORE, PRETRAINED]),
    ("evaluate", "generation.prompts=3", [], [TASK]),
    ("evaluate", "generation.prompts=3", [CLASSES], [TASK]),
    ("evaluate", "generation.batch_size=3", [TASK, "generation.engine=vllm"], [TASK]),
    ("evaluate", "task.similarity=0.4", [TASK], []),
    ("evaluate", "task.molecules=m.smi", [TASK], []),
    ("report", "task.heldout_share=0.1", [TASK], []),
    ("report", "task.max_heavy_atoms=9", [TASK], []),
]
NAMES = [f"{kind} {setting}, {' '.join(without)}"[:90] for kind, setting, without, _ in CASES]


def load(kind: str, overrides: list[str], tmp_path: Path) -> Settings:
    (tmp_path / "job.toml").write_text(BASE[kind])
    return load_job(tmp_path / "job.toml", overrides, KINDS[kind], tmp_path)


@pytest.mark.parametrize("kind, setting, without, with_effect", CASES, ids=NAMES)
def test_a_setting_without_effect_is_refused_by_name(
    kind: str, setting: str, without: list[str], with_effect: list[str], tmp_path: Path
) -> None:
    load(kind, without, tmp_path)  # it is this setting that is refused
    with pytest.raises(InputError) as error:
        load(kind, [*without, setting], tmp_path)
    key = setting.partition("=")[0]
    message = str(error.value)
    assert "\n" not in message
    assert re.search(rf"\b{key.rpartition('.')[2]}\b", message) and key.partition(".")[0] in message, message


@pytest.mark.parametrize("kind, setting, without, with_effect", [c for c in CASES if c[3]])
def test_a_setting_with_an_effect_is_accepted(
    kind: str, setting: str, without: list[str], with_effect: list[str], tmp_path: Path
) -> None:
    load(kind, [*with_effect, setting], tmp_path)


def test_several_are_named_at_once(tmp_path: Path) -> None:
    constant = ["optimizer.schedule=constant", "optimizer.final_lr_share=0.2"]
    expected = r"tokenizer\.vocab_size has .*; optimizer\.final_lr_share has .*; leave them out"
    with pytest.raises(InputError, match=expected):
        load("train", [STORE, LLAMA, "tokenizer.vocab_size=1000", *constant], tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unused_key_is_a_key(kind: str, tmp_path: Path) -> None:
    """Would catch a misspelt name in unused_keys, which refuses nothing."""
    for _, setting, without, with_effect in (case for case in CASES if case[0] == kind):
        jobs = [load(kind, without, tmp_path)]
        jobs += [load(kind, [*with_effect, setting], tmp_path)] if with_effect else []
        for table in (table for job in jobs for table in tables(job)):
            for key in table.unused_keys():
                assert is_key(table, key), (type(table).__name__, key)


def tables(settings: Settings) -> Iterator[Settings]:
    yield settings
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Settings):
                yield from tables(part)


def is_key(table: Any, key: str) -> bool:
    name, _, rest = key.partition(".")
    if isinstance(table, tuple):
        return is_key(table[int(name)], rest)
    if isinstance(table, dict) or table is None:
        return True
    return name in type(table).model_fields and (not rest or is_key(getattr(table, name), rest))
