"""What a job's settings name, opened: stores, tokenizer, and examples in the way that they shall be read."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from cache.errors import SpecMismatchError
from cache.examples.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest
from cache.progress import Progress, no_progress
from cache.store.logit_store import LogitStore
from student.data.averaged_stores import AveragedStores
from student.data.settings import DataSettings
from student.data.sources import Examples, FileSource, MixtureSource, Store, StoreSource
from student.losses.objectives import require_possible
from student.tokenizers.bpe import learn_tokenizer
from student.tokenizers.cross_tokenizer_store import CrossTokenizerStore
from student.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The student's tokenizer, and the logits that it needs at least."""

    tokenizer: PreTrainedTokenizerBase
    size: int


def open_stores(data: DataSettings) -> list[LogitStore]:
    """Every store that is read, all of one tokenizer. Raises SpecMismatchError where they are not."""
    stores = [LogitStore.open(item.store, item.snapshot) for item in data.stores]
    for store in stores[1:]:
        if store.spec.tokenizer != stores[0].spec.tokenizer:
            raise SpecMismatchError(
                f"stores {stores[0].storage} and {store.storage} were captured with different tokenizers; "
                "one run reads stores of one tokenizer"
            )
    return stores


def open_vocabulary(settings: TrainSettings) -> Vocabulary:
    """The tokenizer: the teacher's, unless the job says otherwise; it must be the one of the capture."""
    data, given = settings.data, settings.tokenizer
    if data.align == "cross_tokenizer":
        tokenizer = load_tokenizer(given.path or settings.model.pretrained or "")
        return Vocabulary(tokenizer, len(tokenizer))
    if data.examples is not None:
        if given.vocab_size and not given.path:
            tokenizer = learn_tokenizer(read_examples(data.examples), given.vocab_size)
        else:
            tokenizer = load_tokenizer(given.path or settings.model.pretrained or "")
        return Vocabulary(tokenizer, len(tokenizer))
    stores = open_stores(data)
    path = given.path or stores[0].spec.teacher
    tokenizer = load_tokenizer(path)
    if tokenizer_digest(tokenizer) != stores[0].spec.tokenizer:
        raise SpecMismatchError(
            f"store {stores[0].storage} was captured with another tokenizer than {path!r} has; set tokenizer.path to "
            'the teacher\'s, or data.align = "cross_tokenizer" for a student with a tokenizer of its own'
        )
    return Vocabulary(tokenizer, max(store.spec.vocab_size for store in stores))


def open_examples(
    data: DataSettings, settings: TrainSettings, vocabulary: Vocabulary, progress: Progress = no_progress
) -> Examples:
    """The examples that `data` names, for the loss of the job. Raises where the loss cannot be taken from them."""
    loss = settings.loss
    if data.examples is not None:
        return FileSource(read_examples(data.examples), vocabulary.tokenizer, data, loss)
    stores = open_stores(data)
    whole: list[Store] = list(stores)
    if data.teachers:
        whole = [AveragedStores(stores, [item.weight for item in data.teachers])]
    if data.align == "cross_tokenizer":
        teacher = load_tokenizer(stores[0].spec.teacher)
        whole = [CrossTokenizerStore(stores[0], teacher, vocabulary.tokenizer, progress)]
    sources = [StoreSource(store, data, loss) for store in whole]
    for source in sources:
        require_possible(loss, source.form, str(source.store.storage))
    return sources[0] if len(sources) == 1 else MixtureSource(sources, [item.weight for item in data.mixture])
