"""A training job made ready: its model, and the batches that it learns from and is held against."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cache.errors import InputError
from cache.examples.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer
from cache.progress import Progress, no_progress
from student.classes.class_batches import CLASS_LAWS, ClassBatches
from student.classes.class_examples import ClassSource, learn_input_tokenizer
from student.data.batches import Batches, LanguageBatches
from student.data.settings import DataSettings
from student.losses.objectives import Objectives, TargetForm, require_possible
from student.models.build import build_model
from student.models.layout import layout_of
from student.models.packing_probe import refuse_unpackable
from student.training.open_data import open_examples, open_stores, open_vocabulary
from student.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a run needs. stores: what model cards and results say of each; notes: what else is worth telling."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batches: Batches
    heldout: Batches | None
    examples: int
    left_out: int
    stores: list[dict[str, Any]]
    notes: str = ""


def prepare(settings: TrainSettings, progress: Progress = no_progress) -> Prepared:
    """Open and build what the settings name. Raises a LogitbankError for whatever does not fit together."""
    return _classifier(settings, progress) if settings.classes else _language_model(settings, progress)


def _language_model(settings: TrainSettings, progress: Progress) -> Prepared:
    vocabulary = open_vocabulary(settings)
    source = open_examples(settings.data, settings, vocabulary, progress)
    model = build_model(settings.model, vocabulary.size, vocabulary.tokenizer, settings.run.seed)
    layout = layout_of(model, settings.data.pack_to)
    if layout.pack_to:
        refuse_unpackable(model)
    objectives = _objectives(settings, source.form, settings.data)
    batches = LanguageBatches(source, objectives, layout, settings.loss.example_weight)
    heldout = None
    if settings.heldout:
        data = settings.heldout.as_data(settings.data)
        held = open_examples(data, settings, vocabulary, progress)
        heldout = LanguageBatches(held, _objectives(settings, held.form, data), layout, settings.loss.example_weight)
    notes = str(getattr(getattr(source, "store", None), "shares", ""))
    stores = store_facts(settings.data)
    return Prepared(model, vocabulary.tokenizer, batches, heldout, len(source), source.left_out, stores, notes)


def _classifier(settings: TrainSettings, progress: Progress) -> Prepared:
    assert settings.classes is not None
    given = settings.tokenizer
    if given.path:
        tokenizer = load_tokenizer(given.path)
    elif given.vocab_size:
        tokenizer = learn_input_tokenizer(_training_texts(settings), settings.classes, given.vocab_size)
    else:
        raise InputError(
            "tokenizer.vocab_size: a classifier reads texts with a tokenizer of its own; give its size, or path"
        )
    source = _class_source(settings.data, settings, tokenizer, progress)
    model = build_model(settings.model, len(tokenizer), tokenizer, settings.run.seed, source.names)
    objectives = _objectives(settings, CLASS_LAWS, settings.data)
    heldout = None
    if settings.heldout:
        held = _class_source(settings.heldout.as_data(settings.data), settings, tokenizer, progress)
        heldout = ClassBatches(held, objectives, settings.loss.example_weight)
    return Prepared(
        model,
        tokenizer,
        ClassBatches(source, objectives, settings.loss.example_weight),
        heldout,
        len(source),
        sum(source.left_out.values()),
        store_facts(settings.data),
        "; ".join(f"{count:,} left out: {reason}" for reason, count in source.left_out.items()),
    )


def store_facts(data: DataSettings) -> list[dict[str, Any]]:
    """Uri, snapshot, fingerprint, teacher and targets of each store."""
    return [
        {
            "uri": str(store.storage),
            "snapshot": store.snapshot,
            "fingerprint": store.spec.fingerprint,
            "teacher": store.spec.teacher,
            "targets": str(store.spec.targets),
        }
        for store in open_stores(data)
    ]


def _objectives(settings: TrainSettings, form: TargetForm, data: DataSettings) -> Objectives:
    where = ", ".join(item.store for item in data.stores) or str(data.examples)
    require_possible(settings.loss, form, where)
    return Objectives.of(settings.loss, form)


def _class_source(data: DataSettings, settings: TrainSettings, tokenizer: Any, progress: Progress) -> ClassSource:
    assert settings.classes is not None
    if data.examples is not None:
        return ClassSource.from_examples(read_examples(data.examples), settings.classes, tokenizer)
    (store,) = open_stores(data)
    teacher = load_tokenizer(store.spec.teacher)
    return ClassSource.from_store(store, settings.classes, teacher, tokenizer, data.origins, progress)


def _training_texts(settings: TrainSettings) -> Any:
    if settings.data.examples is not None:
        return read_examples(settings.data.examples)
    (store,) = open_stores(settings.data)
    return (store[i].tokenized.example for i in range(len(store)))
