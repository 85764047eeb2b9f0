"""Describe a model from its files: folder, hashes and sizes, without loading its weights."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest
from cache.json_documents import digest
from cache.rendering.prompt_form import PromptForm, require_template_variables
from cache.rows.spec import StoreSpec
from teacher_serving.asking.prompter import make_prompter, prompting_spec
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.prompt_settings import choose_template_date
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.reduction.settings import TargetSettings

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


def find_model(name: str) -> Path:
    """Find the local folder of a model folder or hub name; download it if necessary.

    Raises InputError if it is not a model.
    """
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
            f"teacher {name!r} is not a model: no such folder, and the hub has none ({reason}); give a model folder"
        ) from error


def describe_local_model(
    teacher: TeacherSettings,
    targets: TargetSettings,
    generation: GenerationSettings | None,
    runs_encoders: bool,
) -> TeacherDescription:
    """Describe a capture from a model whose files are on this machine or on a hub.

    runs_encoders: whether the engine can run encoder-decoder models. Raises InputError if the model cannot provide what
    the settings request.
    """
    from transformers import AutoConfig  # heavy, and reading a job file loads every engine

    if teacher.tokenizer is not None:
        raise InputError(
            f'teacher.tokenizer = {teacher.tokenizer!r} is for engine.kind = "endpoint"; a model has its own: leave it '
            "out"
        )
    folder = find_model(teacher.model)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=teacher.trust_remote_code)
        tokenizer = load_tokenizer(folder, teacher.trust_remote_code)
    except (OSError, ValueError, KeyError, InputError) as error:
        raise InputError(f"teacher {teacher.model!r} is not a model: {error}") from error
    require_template_variables(tokenizer, teacher.chat_template_kwargs, "teacher.chat_template_kwargs")
    _require_vocabulary(targets, config)
    _require_context(teacher, config)
    _require_engine(teacher, targets, config, runs_encoders)
    form = PromptForm(
        teacher.chat_template_kwargs, choose_template_date(teacher, tokenizer), bool(config.is_encoder_decoder)
    )
    prompter = make_prompter(generation, teacher.max_tokens, form) if generation else None
    spec = StoreSpec(
        teacher=teacher.model,
        weights=_hash_weights(folder),
        tokenizer=tokenizer_digest(tokenizer),
        chat_template=digest(tokenizer.chat_template),
        vocab_size=int(config.get_text_config().vocab_size),
        tokenizer_size=len(tokenizer),
        dtype=resolve_dtype(teacher, config),
        targets=targets.spec,
        sampling=generation.sampling if generation else None,
        adapter=_hash_adapter(Path(teacher.lora_path)) if teacher.lora_path else "",
        quantization=teacher.quantization or "",
        truncation=teacher.truncation,
        asked=targets.of,
        prompting=prompting_spec(generation, prompter) if generation and prompter else None,
        chat_template_kwargs=teacher.chat_template_kwargs,
        template_date=form.template_date,
    )
    return TeacherDescription(spec, folder, str(folder), teacher.trust_remote_code, prompter, form)


def _require_vocabulary(targets: TargetSettings, config: Any) -> None:
    """Raise InputError if targets.k is larger than the vocabulary."""
    vocab_size = int(config.get_text_config().vocab_size)
    if targets.spec.k > vocab_size:
        raise InputError(
            f"targets.k = {targets.spec.k} is larger than the teacher's vocabulary of {vocab_size}; lower it"
        )


def _require_engine(teacher: TeacherSettings, targets: TargetSettings, config: Any, runs_encoders: bool) -> None:
    """Raise InputError if the model has an encoder and the engine or the targets do not allow it."""
    if not config.is_encoder_decoder:
        return
    if not runs_encoders:
        raise InputError(f'teacher {teacher.model!r} has an encoder, which needs engine.kind = "transformers"')
    if targets.of == "all":
        raise InputError(
            'targets.of = "all": an encoder reads the prompt and predicts no next token there; leave it out'
        )


def _require_context(teacher: TeacherSettings, config: Any) -> None:
    """Raise InputError if the longest example does not fit into the model's context."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context and teacher.max_tokens >= context:
        raise InputError(
            f"teacher.max_tokens = {teacher.max_tokens} must be below the {context} positions of {teacher.model!r}: "
            "the engine generates one more token"
        )


def resolve_dtype(teacher: TeacherSettings, config: Any) -> str:
    """Resolve "auto" to the dtype in the model's configuration, or to float32 if it names none."""
    if teacher.dtype != "auto":
        return teacher.dtype
    return str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")


def _hash_adapter(folder: Path) -> str:
    """Hash a LoRA adapter's configuration and weights. Raises InputError if the folder contains none."""
    weights = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if not weights or not (folder / "adapter_config.json").is_file():
        raise InputError(
            f"teacher.lora_path {folder}: no adapter_config.json with weights; give a LoRA adapter's folder"
        )
    return _hash_files([folder / "adapter_config.json", *weights])


def _hash_weights(folder: Path) -> str:
    """Hash the configuration and every weight file. For a hub snapshot the folder's name, its revision, is enough."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return f"revision:{folder.name}"
    return _hash_files([folder / "config.json", *sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))])


def _hash_files(paths: Sequence[Path]) -> str:
    """Hash a small first file and the digests of the files that follow it."""
    state = hashlib.sha256(paths[0].read_bytes())
    for path in paths[1:]:
        with path.open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{state.hexdigest()}"
