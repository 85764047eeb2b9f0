"""Which teacher is this? Folder, hashes and sizes of a model, without loading its weights."""

import hashlib
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from cache.documents import digest
from cache.errors import InputError
from cache.rendering import Tokenizer, tokenizer_digest
from cache.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.config import GenerationSettings, TargetSettings, TeacherSettings

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


def find_model(name: str) -> Path:
    """Local folder of a model folder or hub name (downloaded if it must be). InputError where it is no model."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"teacher {name!r} is not a model: no config.json in it; give a Hugging Face model folder")
        if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
            raise InputError(f"teacher {name!r} is not a model: no weights in it ({', '.join(WEIGHTS)})")
        return folder.resolve()
    if name.count("/") > 1 or name.startswith((".", "/")) or not name:
        raise InputError(f"teacher {name!r} is not a model: no such folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name))
    except Exception as error:
        reason = f"{type(error).__name__}"
        raise InputError(
            f"teacher {name!r} is not a model: no such folder, and the hub gave none ({reason}); give a model folder"
        ) from error


def describe(
    teacher: TeacherSettings, targets: TargetSettings, generation: GenerationSettings | None
) -> tuple[StoreSpec, Path, Tokenizer]:
    """The spec of a capture, the teacher's folder and its tokenizer."""
    folder = find_model(teacher.model)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=teacher.trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=teacher.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"teacher {teacher.model!r} is not a model: {error}") from error
    vocab_size = int(config.get_text_config().vocab_size)
    if targets.k > vocab_size:
        raise InputError(f"targets.k = {targets.k} is larger than the teacher's vocabulary of {vocab_size}; lower it")
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context and teacher.max_tokens >= context:
        raise InputError(
            f"teacher.max_tokens = {teacher.max_tokens} must be below the {context} positions of {teacher.model!r}: "
            "scoring generates one token more"
        )
    spec = StoreSpec(
        teacher=teacher.model,
        weights=_hash_weights(folder),
        tokenizer=tokenizer_digest(tokenizer),
        chat_template=digest(tokenizer.chat_template),
        vocab_size=vocab_size,
        tokenizer_size=len(tokenizer),
        dtype=resolve_dtype(teacher, config),
        targets=TargetSpec(**targets.model_dump()),
        sampling=SamplingSpec(
            generation.samples,
            generation.temperature,
            generation.top_p,
            generation.max_new_tokens,
            generation.seed,
            generation.answer_marker,
        )
        if generation
        else None,
    )
    return spec, folder, tokenizer


def resolve_dtype(teacher: TeacherSettings, config: Any) -> str:
    """The dtype that "auto" stands for: the one in the model's configuration, else float32."""
    if teacher.dtype != "auto":
        return teacher.dtype
    return str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")


def _hash_weights(folder: Path) -> str:
    """Hash of the configuration and every weight file. A hub snapshot's folder name is its revision: that is enough."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return f"revision:{folder.name}"
    state = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        with path.open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{state.hexdigest()}"
