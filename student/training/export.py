"""Save a trained student in Hugging Face form."""

import shutil
import tempfile
from copy import copy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cache.errors import InputError, LogitbankError
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest
from student.tokenizers.bpe import save_tokenizer

ADAPTER, ADAPTER_FILE = "adapter", "adapter_model.safetensors"


def save_student(
    model: PreTrainedModel,
    weights: dict[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    card: str,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    base: str = "",
) -> None:
    """Write weights (adapters merged), configuration, tokenizer and README.md. `folder` appears complete or not at all.

    base: folder or hub name of the model that the adapters belong to. They are saved beside it, in `adapter`; "" for
    none, or for a base that exists nowhere.

    model: gives configuration, structure and buffers. weights: float32, by the names of its parameters. dtype: that the
    student was trained in, and is saved in.
    Raises RuntimeError if a weight is missing or unknown.
    """
    draft = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    with torch.device("meta"):
        plain = type(model)._from_config(model.config, dtype=dtype)
    saved = plain.state_dict()
    # Such as the corrections that balance the load of some mixtures of experts; bf16 training has rounded them.
    buffers = {
        name: buffer.detach().cpu().to(saved[name].dtype) for name, buffer in model.named_buffers() if name in saved
    }
    merged = {
        name: weight.to(saved[name].dtype) if name in saved else weight
        for name, weight in merge_adapters(model, weights).items()
    }
    mismatch = plain.load_state_dict(merged | buffers, strict=False, assign=True)
    plain.tie_weights()
    if mismatch.unexpected_keys or any(tensor.is_meta for tensor in plain.parameters()):
        raise RuntimeError(f"weights do not fit {model.config.model_type}: {mismatch}")
    plain.generation_config = getattr(model, "generation_config", None)
    plain.save_pretrained(draft)
    save_tokenizer(tokenizer, draft)
    write_card(card, draft)
    if base:
        save_adapters(model, weights, base, draft / ADAPTER)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def require_savable(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, trust_remote_code: bool = False
) -> None:
    """Raise InputError unless the student can be saved, and reloads with the tokenizer that it is trained with.

    Transformers chooses the class of a tokenizer by the type of the model beside it, and some classes give other ids.
    trust_remote_code: whether code that comes with tokenizer or model may run.
    """
    kind = model.config.model_type
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.config.save_pretrained(folder)
            if getattr(model, "generation_config", None) is not None:
                model.generation_config.save_pretrained(folder)
            save_tokenizer(tokenizer, Path(folder))
            reloaded = load_tokenizer(folder, trust_remote_code)
        except (LogitbankError, OSError, ValueError, TypeError) as error:
            raise InputError(f"model type {kind!r}: a student of it could not be saved and loaded: {error}") from error
    if tokenizer_digest(reloaded) != tokenizer_digest(tokenizer):
        raise InputError(
            f"model type {kind!r}: Transformers loads every tokenizer of such a model as {type(reloaded).__name__}, "
            "which gives other ids than the tokenizer of this job; train a model of another type (such as 'llama'), or "
            "use a tokenizer of this family"
        )


def write_card(card: str, folder: Path) -> None:
    """Write the model card into the folder of a model."""
    (folder / "README.md").write_text(card)


def save_adapters(model: PreTrainedModel, weights: dict[str, Tensor], base: str, folder: Path) -> None:
    """Write the adapters as PEFT does: `PeftModel.from_pretrained(base, folder)` gives the student.

    weights: float32, by the names of the model's parameters.
    """
    from peft.utils import get_peft_model_state_dict

    config = copy(model.peft_config["default"])
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.task_type = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    adapters = get_peft_model_state_dict(model, state_dict=weights, save_embedding_layers=False)
    folder.mkdir(parents=True)
    save_file({f"base_model.model.{name}": weight for name, weight in adapters.items()}, folder / ADAPTER_FILE)
    config.save_pretrained(str(folder))


def merge_adapters(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the model without adapters: low-rank updates are added to the weights (W + scaling B A).

    With DoRA each row of the sum is divided by its norm, and multiplied by the norm that was learned.
    """
    from peft.tuners.lora import LoraLayer

    plain = dict(weights)
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        (adapter,) = module.lora_A.keys()
        down, up = (plain.pop(f"{name}.lora_{side}.{adapter}.weight") for side in "AB")
        delta = module.scaling[adapter] * (up @ down)
        base = plain.pop(f"{name}.base_layer.weight")
        is_transposed = getattr(module, "fan_in_fan_out", False)
        merged = (base.T if is_transposed else base) + delta
        if module.use_dora.get(adapter):
            norm = plain.pop(f"{name}.lora_magnitude_vector.{adapter}.weight")
            merged = merged * (norm / merged.norm(dim=1))[:, None]
        plain[f"{name}.weight"] = merged.T.contiguous() if is_transposed else merged
        if (bias := plain.pop(f"{name}.base_layer.bias", None)) is not None:
            plain[f"{name}.bias"] = bias
    return plain
