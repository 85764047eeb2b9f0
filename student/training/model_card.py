"""The model card of a student: README.md with the metadata that model hubs read. Contains no local paths."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from transformers import PreTrainedConfig

from cache.settings import public_name
from student.models.registry import kind_of
from student.training.settings import TrainSettings

OPTIMIZER_NAMES = {"adamw": "AdamW", "adamw_8bit": "AdamW with moments of 8 bits", "muon": "Muon"}

TEXT_GENERATION = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
messages = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=128)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""

TEXT_TO_TEXT = """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForSeq2SeqLM.from_pretrained("FOLDER")
messages = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=128)
print(tokenizer.decode(output[0], skip_special_tokens=True))"""

TEXT_CLASSIFICATION = """\
import student.models.kinds.compact_classifier  # of logitbank; registers the architecture with Transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForSequenceClassification.from_pretrained("FOLDER")
inputs = tokenizer("...", add_special_tokens=False, return_tensors="pt")
logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
print(model.config.id2label[int(logits.argmax())])"""

USAGE = {
    "text-generation": TEXT_GENERATION,
    "text2text-generation": TEXT_TO_TEXT,
    "text-classification": TEXT_CLASSIFICATION,
}


def model_card(settings: TrainSettings, result: dict[str, Any], config: PreTrainedConfig) -> str:
    """README.md of a student. result: fields of student.training.train.TrainResult. config: that of the model."""
    purpose = kind_of(config).pipeline_tag
    parts = [
        f"---\n{_metadata(settings, result, purpose).to_yaml()}\n---",
        f"# {settings.output.name}",
        _summary(settings, result),
        f"## Usage\n\n```python\n{USAGE[purpose]}\n```",
        f"## Training data\n\n{_data(settings, result)}",
        f"## Training\n\n{_training(settings, result)}",
        f"## Metrics\n\n{_metrics(result)}",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(settings: TrainSettings, result: dict[str, Any], pipeline_tag: str) -> ModelCardData:
    """The front matter. Base model and datasets are named only if a hub has them."""
    base = settings.model.pretrained
    hub_base = base if base is not None and not Path(base).exists() else None
    prefix = "hf://datasets/"
    addresses = [store["uri"].removeprefix(prefix) for store in result["stores"] if store["uri"].startswith(prefix)]
    tags = ["logitbank", *(["knowledge-distillation"] if settings.loss.needs_teacher else [])]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        tags=tags,
        base_model=hub_base,
        base_model_relation="finetune" if hub_base else None,
        license=_license(base) if base is not None else None,
        datasets=["/".join(address.split("/")[:2]) for address in addresses] or None,
    )


def _license(base: str) -> str | None:
    """The licence in the model card of the base model, if the card is on this machine."""
    folder = Path(base)
    card = str(folder / "README.md") if folder.is_dir() else try_to_load_from_cache(base, "README.md")
    if not isinstance(card, str) or not Path(card).is_file():
        return None
    try:
        value = ModelCard.load(card).data.to_dict().get("license")
    except ValueError:  # its front matter is not valid
        return None
    return value if isinstance(value, str) else None


def _summary(settings: TrainSettings, result: dict[str, Any]) -> str:
    base = settings.model.pretrained
    origin = (
        f"Fine-tuned from {public_name(base)}"
        if base is not None
        else f"A {(settings.model.config or {}).get('model_type')} model trained from random weights"
    )
    teachers = ", ".join(dict.fromkeys(public_name(store["teacher"]) for store in result["stores"]))
    if settings.loss.needs_teacher:
        method = f"by offline distillation from {teachers}: from next-token distributions that were captured once"
    else:
        what = "classes" if settings.classes is not None else "tokens"
        method = f"on hard labels: with cross-entropy on the {what} of its examples, without a teacher's distributions"
    return f"{origin} {method}. It has {result['parameters']:,} parameters."


def _data(settings: TrainSettings, result: dict[str, Any]) -> str:
    lines = [f"{result['examples']:,} examples; {result['examples_left_out']:,} others were left out."]
    if settings.data.examples is not None:
        lines += ["", "| | |", "|---|---|", f"| file | {settings.data.examples.name} |"]
    for store in result["stores"]:
        lines += [
            "",
            "| | |",
            "|---|---|",
            f"| store | {public_name(store['uri'])}, snapshot {store['snapshot']} |",
            f"| teacher | {public_name(store['teacher'])} |",
            f"| fingerprint | `{store['fingerprint']}` |",
            f"| targets | {store['targets']} |",
        ]
    return "\n".join(lines)


def _training(settings: TrainSettings, result: dict[str, Any]) -> str:
    terms = [
        f"{term.weight:g} x {term.objective}"
        + (f" at temperature {term.temperature:g}" if term.temperature != 1 else "")
        for term in settings.loss.all_terms
    ]
    optimizer, run, lora = settings.optimizer, settings.run, settings.model.lora
    rows = {
        "loss": " + ".join(terms),
        "steps": f"{result['steps']:,} of {run.step_size}, {result['tokens']:,} tokens with a loss",
        "optimizer": f"{OPTIMIZER_NAMES[optimizer.name]}, peak learning rate {optimizer.lr:g}"
        + (f" ({optimizer.adam_lr:g} for AdamW)" if optimizer.adam_lr else "")
        + f", {optimizer.schedule}",
        "precision, seed": f"{run.precision}, {run.seed}",
        "saved weights": "float32" if (run.save_dtype or run.precision) == "fp32" else "bfloat16, rounded from float32",
    }
    if lora is not None:
        rows["adapters"] = (
            f"{'DoRA' if lora.dora else 'LoRA'} of rank {lora.rank}, {result['trained_parameters']:,} trained "
            "parameters, merged into the weights"
            + (f", which were rounded to {lora.quantise}" if lora.quantise else "")
        )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _metrics(result: dict[str, Any]) -> str:
    rows = []
    if result["best_loss"] is not None:
        rows += [f"| held-out loss | {result['best_loss']:.4f} at step {result['best_step']:,}, the saved one |"]
    if result["last_loss"] is not None:
        rows += [f"| training loss of the last step | {result['last_loss']:.4f} |"]
    if not rows:
        return "None were computed."
    return "\n".join(["In nats.", "", "| | |", "|---|---|", *rows])
