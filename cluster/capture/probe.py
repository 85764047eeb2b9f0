"""What an engine says beside Transformers: the first examples of a capture job, captured by both and compared."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.comparison.store_comparison import StoreComparison, compare_stores
from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest
from cache.progress import Progress, no_progress
from cache.store.logit_store import LogitStore
from cluster.capture.driver import run_capture
from cluster.capture.run import CaptureOutcome
from cluster.capture.settings import CaptureSettings
from cluster.capture.trial import shared_folder
from cluster.runtime.job_file import apply_override, resolve_job
from cluster.runtime.job_messages import read_toml
from teacher_serving.engines.transformers.settings import TransformersSettings

# Entries of each row where the job's own rows are draws, which cannot be compared one by one.
K = 64


@dataclass(frozen=True, slots=True)
class Probe:
    """What the engine of a job and the reference say. engine, reference: of each capture, with its seconds.

    dtypes: of the weights of both, as the stores name them.
    """

    comparison: StoreComparison
    engine: CaptureOutcome
    reference: CaptureOutcome
    dtypes: tuple[str, str]


def reference_job(path: Path, overrides: Sequence[str], changes: Sequence[str], root: Path) -> CaptureSettings:
    """The job with Transformers as its engine and float32 weights, without a quantisation scheme.

    overrides: of the job itself; changes: of the reference alone; both as `key.path=value`. Raises InputError as
    `load_job` does.
    """
    values: dict[str, Any] = deepcopy(read_toml(path))
    for override in overrides:
        apply_override(values, override)
    values["engine"] = {"kind": "transformers"}
    teacher = values.get("teacher")
    if isinstance(teacher, dict):
        for key in TransformersSettings.unused_teacher_keys:
            teacher.pop(key, None)
        teacher["dtype"] = "float32"
    for change in changes:
        if not change.startswith(("teacher.", "engine.")):
            raise InputError(
                f"--reference {change!r}: the reference has the examples and the targets of the job; change a key of "
                "[teacher] or [engine]"
            )
        apply_override(values, change, "--reference")
    return resolve_job(values, CaptureSettings, f"job file {path}, as the reference", root)


def run_probe(
    job: CaptureSettings, reference: CaptureSettings, examples: int, progress: Progress = no_progress
) -> Probe:
    """Capture the first examples of a job twice, into stores that are removed afterwards, and compare their rows.

    reference: see reference_job. It scores the texts that the job's teacher wrote, if it writes any.
    Raises InputError if one of them captures nothing, or no example can be compared.
    """
    _require_same_tokenizer(job, reference)
    limit = min(examples, job.limit or examples)
    with shared_folder(job) as folder:
        targets = _comparable(job)
        common = {"limit": limit, "actors": 1, "targets": targets}
        first = _captured(job.model_copy(update={**common, "store": str(folder / "engine")}), "the job")
        source: Mapping[str, Any] = {"examples": reference.examples, "fields": reference.fields}
        with LogitStore.open(str(folder / "engine")) as own:
            if job.generation is not None:
                write_examples(folder / "texts.jsonl", _written(own))
                source = {"examples": str(folder / "texts.jsonl"), "fields": {}, "generation": None, "score": True}
                common["limit"] = None
            second = _captured(
                reference.model_copy(update={**common, **source, "store": str(folder / "reference")}), "the reference"
            )
            with LogitStore.open(str(folder / "reference")) as other:
                pairs = None if job.generation is None else _pairs(other, own)
                found = compare_stores(other, own, None, progress, pairs)
                return Probe(found, first, second, (own.spec.dtype, other.spec.dtype))


def _written(store: LogitStore) -> Iterator[Example]:
    """The texts of a store, each with its key there as its id."""
    numbers = store.numbers().tolist()
    for number, example in zip(numbers, store.texts(numbers), strict=True):
        yield replace(example, id=store.key(number))


def _pairs(reference: LogitStore, own: LogitStore) -> npt.NDArray[np.int64]:
    """Which examples of the two are the same text, [pairs, 2]: the reference has keys of the other as ids."""
    number = {own.key(i): i for i in range(len(own))}
    ids = [example.id for example in reference.texts(reference.numbers().tolist())]
    return np.array([[i, number[key]] for i, key in enumerate(ids)], np.int64).reshape(-1, 2)


def _require_same_tokenizer(job: CaptureSettings, reference: CaptureSettings) -> None:
    """Raise InputError, before anything is captured, unless both teachers have the same tokenizer."""
    names = [each.teacher.tokenizer or each.teacher.model for each in (job, reference)]
    if names[0] == names[1]:
        return
    ours, theirs = (
        tokenizer_digest(load_tokenizer(name, each.teacher.trust_remote_code))
        for name, each in zip(names, (job, reference), strict=True)
    )
    if ours != theirs:
        raise InputError(
            f"the reference {names[1]!r} has another tokenizer than {names[0]!r}, so their rows would be about other "
            "tokens; give a reference with the same one"
        )


def _comparable(job: CaptureSettings) -> Any:
    """The targets of the job, or the most probable tokens where it stores estimates."""
    targets = job.targets
    if targets.with_mode(job.engine.default_mode).mode in ("topk", "nucleus"):
        return targets
    return type(targets).model_validate({"mode": "topk", "k": K, "of": targets.of})


def _captured(settings: CaptureSettings, name: str) -> CaptureOutcome:
    outcome = run_capture(settings)
    if not outcome.captured:
        reasons = ", ".join(outcome.reasons) or "no reason"
        raise InputError(f"{name} captured none of {settings.limit or 'the'} examples ({reasons})")
    return outcome
