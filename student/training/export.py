"""A trained student in Hugging Face form, with a card that says what it was trained on."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from student.models.build import kind_of
from student.tokenizers.bpe import save_tokenizer
from student.training.settings import TrainSettings


def save_student(
    model: PreTrainedModel, weights: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, card: str, folder: Path
) -> None:
    """Write `folder` whole or not at all: weights (adapters merged), configuration, tokenizer and README.md.

    model: gives configuration, structure and buffers. weights: by the names of its parameters.
    """
    draft = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    with torch.device("meta"):
        plain = kind_of(model.config).from_config(model.config, dtype=torch.float32)
    saved = plain.state_dict()
    # Such as the corrections by which some mixtures of experts balance their load; bf16 training has rounded them.
    buffers = {name: held.detach().cpu().to(saved[name].dtype) for name, held in model.named_buffers() if name in saved}
    missing = plain.load_state_dict(merged(model, weights) | buffers, strict=False, assign=True)
    plain.tie_weights()
    if missing.unexpected_keys or any(tensor.is_meta for tensor in plain.parameters()):
        raise RuntimeError(f"weights do not fit {model.config.model_type}: {missing}")
    plain.generation_config = getattr(model, "generation_config", None)
    plain.save_pretrained(draft)
    save_tokenizer(tokenizer, draft)
    write_card(card, draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def write_card(card: str, folder: Path) -> None:
    (folder / "README.md").write_text(card)


def merged(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the plain model: those of low-rank adapters are added to what they adapt (W + scaling B A)."""
    from peft.tuners.lora import LoraLayer

    plain = dict(weights)
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        (adapter,) = module.lora_A.keys()
        down, up = (plain.pop(f"{name}.lora_{side}.{adapter}.weight") for side in "AB")
        delta = module.scaling[adapter] * (up @ down)
        base = plain.pop(f"{name}.base_layer.weight")
        plain[f"{name}.weight"] = base + (delta.T if getattr(module, "fan_in_fan_out", False) else delta)
        if (bias := plain.pop(f"{name}.base_layer.bias", None)) is not None:
            plain[f"{name}.bias"] = bias
    return plain


def model_card(settings: TrainSettings, result: dict[str, Any]) -> str:
    """README.md of a student. result: fields of student.training.loop.TrainResult, as far as they are known."""
    base = settings.model.pretrained or f"{(settings.model.config or {}).get('model_type')}, from random weights"
    terms = [
        f"{term.weight:g} x {term.objective}"
        + (f" at temperature {term.temperature:g}" if term.temperature != 1 else "")
        for term in settings.loss.mix
    ]
    lines = [
        "---",
        "library_name: transformers",
        "tags: [distillation, logitbank]",
        "---",
        f"# {settings.output.name}",
        "",
    ]
    lines += [f"Student ({base}), distilled offline: trained on what its teacher had said, from a store.", ""]
    lines += ["| | |", "|---|---|", f"| loss | {' + '.join(terms)} |"]
    for store in result["stores"]:
        lines += [
            f"| teacher | {store['teacher']} |",
            f"| store | {store['uri']}, snapshot {store['snapshot']} |",
            f"| fingerprint | `{store['fingerprint']}` |",
            f"| targets | {store['targets']} |",
        ]
    if settings.data.examples is not None:
        lines += [f"| examples | {settings.data.examples.name} (hard labels) |"]
    optimizer, run = settings.optimizer, settings.run
    lines += [
        f"| steps | {result['steps']:,} of {run.batch_size} examples, {result['tokens']:,} tokens with a loss |",
        f"| optimizer | AdamW, peak rate {optimizer.lr:g}, {optimizer.schedule} |",
        f"| precision, seed | {run.precision}, {run.seed} |",
    ]
    if "parameters" in result:  # not yet in the card of a student that is the best so far
        lines += [f"| parameters | {result['parameters']:,} |"]
    if result.get("best_loss") is not None:
        lines += [f"| best | step {result['best_step']:,}, held-out loss {result['best_loss']:.4f} |"]
    return "\n".join([*lines, ""])
