"""Open the training and held-out examples of a job."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cache.errors import SpecMismatchError
from cache.examples.files.jsonl import read_examples
from cache.progress import Progress, no_progress
from cache.store.logit_store import LogitStore
from cache.store.reading.union import StoreUnion
from student.classification.source import ClassSource
from student.data.averaged_stores import AveragedStores
from student.data.settings import DataSettings
from student.data.sources import Examples, FileSource, MixtureSource, Store, StoreSource
from student.losses.target_forms import require_supported
from student.tokenizers.cross_tokenizer_store import AlignedSizes, CrossTokenizerStore
from student.training.planning.stores import OpenStores
from student.training.planning.vocabulary import Vocabulary
from student.training.settings import TrainSettings

DOUBLES = "in an earlier store of data.union too"
UNMATCHED = "not scored by all of data.teachers"


def open_examples(
    data: DataSettings,
    settings: TrainSettings,
    vocabulary: Vocabulary,
    stores: OpenStores,
    sizes: AlignedSizes | None = None,
    progress: Progress = no_progress,
) -> Examples:
    """Open the examples that `data` names, for a language model.

    sizes: of a store with another tokenizer, if they are known; otherwise the whole store is aligned once.
    Raises StoreError if the loss cannot be computed from the targets.
    """
    loss, step = settings.loss, settings.run.step_size
    if data.examples is not None:
        examples = read_examples(data.examples)
        return FileSource(examples, vocabulary.tokenizer, data, loss, vocabulary.form, step)
    opened = stores.open_all(data)
    _require_kind_of_aligned(opened, vocabulary)
    readable: list[Store] = list(opened)
    left_out = Counter[str]()
    if data.union:
        union = StoreUnion(opened)
        readable, left_out[DOUBLES] = [union], union.doubles
    if data.teachers:
        averaged = AveragedStores(opened, [item.weight for item in data.teachers])
        readable, left_out[UNMATCHED] = [averaged], averaged.left_out
    if data.align == "cross_tokenizer":
        teacher = opened[0].load_tokenizer()
        readable = [CrossTokenizerStore(opened[0], teacher, vocabulary.tokenizer, progress, sizes, vocabulary.form)]
    sources = [StoreSource(store, data, loss, step) for store in readable]
    sources[0].left_out += left_out  # keeps numbers above 0
    for source in sources:
        require_supported(loss, source.form, str(source.store.storage))
    weights = [item.weight for item in data.mixture] or [1.0]
    if (replayed := data.replayed()) is not None and data.replay is not None:
        examples = read_examples(data.replay.examples)
        file = FileSource(examples, vocabulary.tokenizer, replayed, loss, vocabulary.form, step)
        return MixtureSource([*sources, file], [*weights, data.replay.weight])
    return sources[0] if len(sources) == 1 else MixtureSource(sources, weights)


def _require_kind_of_aligned(stores: Sequence[LogitStore], vocabulary: Vocabulary) -> None:
    """Raise SpecMismatchError for a store that was aligned for students of the other kind: its prompts are others."""
    for store in stores:
        aligned, has_encoder = store.spec.aligned, vocabulary.form.has_encoder
        if aligned and bool(aligned.get("has_encoder")) != has_encoder:
            raise SpecMismatchError(
                f"{store.storage}: was aligned for students {'without' if has_encoder else 'with'} an encoder, and "
                f"this one has {'one' if has_encoder else 'none'}; align the original store "
                f"{'with' if has_encoder else 'without'} --encoder into another folder"
            )


def aligned_store(source: Examples) -> CrossTokenizerStore | None:
    """The aligned store that examples come from, or None if they need no alignment."""
    first = source.sources[0] if isinstance(source, MixtureSource) else source
    store = getattr(first, "store", None)
    return store if isinstance(store, CrossTokenizerStore) else None


def open_classes(
    data: DataSettings,
    settings: TrainSettings,
    vocabulary: Vocabulary,
    stores: OpenStores,
    saved: Path | None = None,
    progress: Progress = no_progress,
) -> ClassSource:
    """Open the examples that `data` names, for a classifier. saved: a file with them, from an earlier time.

    Raises InputError or StoreError if no example has a class.
    """
    assert settings.classes is not None
    if saved is not None:
        return ClassSource.load(saved)
    if data.examples is not None:
        examples = read_examples(data.examples)
        return ClassSource.from_examples(examples, settings.classes, vocabulary.tokenizer, data.where)
    (store,) = stores.open_all(data)
    teacher = store.load_tokenizer()
    return ClassSource.from_store(
        store, settings.classes, teacher, vocabulary.tokenizer, data.origins, progress, data.where
    )
