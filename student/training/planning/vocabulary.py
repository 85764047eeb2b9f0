"""The tokenizer of a job: the teacher's, another one, or one that is learned from the training examples."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from cache.errors import InputError, SpecMismatchError
from cache.examples.example import Example
from cache.examples.files.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest, vocabulary_difference
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm, require_template_variables, today, writes_date
from cache.store.claims.tokenizer_files import UNKNOWN_TOKENIZER, copy_tokenizer
from cache.store.reading.selection import BLOCK_EXAMPLES, has_metadata
from student.classification.texts import learn_input_tokenizer
from student.models.registry import has_encoder
from student.tokenizers.bpe import learn_tokenizer, save_tokenizer
from student.training.planning.plan import TrainingPlan, tokenizer_folder
from student.training.planning.stores import OpenStores
from student.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The student's tokenizer, and the minimum number of logits of the student.

    path: folder or hub name that loads the tokenizer; None if it is saved with the plan. form: how the student's own
    tokenizer renders texts.
    """

    tokenizer: PreTrainedTokenizerBase
    size: int
    path: str | None = None
    form: PromptForm = DEFAULT_FORM


def choose_vocabulary(settings: TrainSettings, stores: OpenStores, folder: Path) -> Vocabulary:
    """Load the tokenizer that the job needs, or learn it and save it in `folder`, that of the plan.

    Raises SpecMismatchError if a store was captured with another tokenizer, InputError if there is no tokenizer.
    """
    vocabulary = _choose(settings, stores, folder)
    date = today() if writes_date(vocabulary.tokenizer) else ""
    variables = settings.tokenizer.chat_template_kwargs
    require_template_variables(vocabulary.tokenizer, variables, "tokenizer.chat_template_kwargs")
    return replace(vocabulary, form=PromptForm(variables, date, has_encoder(settings.model)))


def _choose(settings: TrainSettings, stores: OpenStores, folder: Path) -> Vocabulary:
    requested = settings.tokenizer
    learns = bool(requested.vocab_size and not requested.path)
    if settings.classes is not None:
        if learns:
            return _learn(settings, stores, folder)
        path = requested.path or settings.model.pretrained
        if path is None:
            raise InputError(
                "tokenizer.vocab_size: a classifier reads texts with a tokenizer of its own; give its size, or "
                "tokenizer.path"
            )
        return _load(path, settings)
    if settings.data.align == "cross_tokenizer":
        return _load(requested.path or settings.model.pretrained or "", settings)
    if settings.data.examples is not None:
        return (
            _learn(settings, stores, folder)
            if learns
            else _load(requested.path or settings.model.pretrained or "", settings)
        )
    return _of_stores(settings, stores, folder)


def load_vocabulary(settings: TrainSettings, folder: Path, plan: TrainingPlan) -> Vocabulary:
    """Load the tokenizer of a plan in `folder`.

    Raises SpecMismatchError if the tokenizer has changed since the job was planned, InputError if it cannot be loaded.
    """
    path = plan.tokenizer
    tokenizer = _load_saved(folder) if path is None else load_tokenizer(path, settings.trusts_code)
    if tokenizer_digest(tokenizer) != plan.tokenizer_digest:
        raise SpecMismatchError(
            f"tokenizer {str(path or tokenizer_folder(folder))!r} has changed since the job was planned; restore it, "
            "or train into another output"
        )
    form = PromptForm(settings.tokenizer.chat_template_kwargs, plan.template_date, has_encoder(settings.model))
    return Vocabulary(tokenizer, plan.vocab_size, path, form)


def _load_saved(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that is saved with the plan in `folder`."""
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(str(tokenizer_folder(folder)))
    # Loading adds two facts about the folder, which a saved student would carry on.
    for key in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def _load(path: str, settings: TrainSettings) -> Vocabulary:
    tokenizer = load_tokenizer(path, settings.trusts_code)
    return Vocabulary(tokenizer, len(tokenizer), path)


def _of_stores(settings: TrainSettings, stores: OpenStores, folder: Path) -> Vocabulary:
    """The teacher's tokenizer, with logits for the widest store."""
    opened = stores.open_all(settings.data)
    path: str | None = settings.tokenizer.path
    if path is None and copy_tokenizer(opened[0].storage, tokenizer_folder(folder)):
        tokenizer = _load_saved(folder)
    else:
        path = path or opened[0].spec.teacher
        tokenizer = load_tokenizer(path, settings.tokenizer.trust_remote_code)
    if opened[0].spec.tokenizer == UNKNOWN_TOKENIZER:
        raise SpecMismatchError(
            f"store {opened[0].storage} was imported without its tokenizer, so nothing says what its ids mean; "
            "import it into a new store with --tokenizer"
        )
    if tokenizer_digest(tokenizer) != opened[0].spec.tokenizer:
        raise SpecMismatchError(
            f"store {opened[0].storage} was captured with another tokenizer than {path!r} has; set tokenizer.path to "
            'the teacher\'s, or data.align = "cross_tokenizer" for a student with a tokenizer of its own'
        )
    if settings.model.pretrained is not None:
        _require_same_ids(
            settings.model.pretrained, settings.model.trust_remote_code, tokenizer, str(opened[0].storage)
        )
    return Vocabulary(tokenizer, max(store.spec.vocab_size for store in opened), path)


def _require_same_ids(model: str, trust_remote_code: bool, tokenizer: PreTrainedTokenizerBase, store: str) -> None:
    """Raise SpecMismatchError if a pretrained student has a tokenizer of its own, with other ids than the store's."""
    try:
        own = load_tokenizer(model, trust_remote_code)
    except InputError:
        return  # weights without a tokenizer: only their owner knows what the ids mean
    if tokenizer_digest(own) == tokenizer_digest(tokenizer):
        return
    if difference := vocabulary_difference(tokenizer, own):
        raise SpecMismatchError(
            f"model {model!r} has another vocabulary than store {store}: {difference}; set "
            'data.align = "cross_tokenizer" to keep its tokenizer, or give model.config to start '
            "with the teacher's"
        )


def _learn(settings: TrainSettings, stores: OpenStores, folder: Path) -> Vocabulary:
    """Learn a tokenizer from the training examples, save it, and load it as every rank will."""
    size = settings.tokenizer.vocab_size
    assert size is not None
    examples = _training_examples(settings, stores)
    if settings.classes is None:
        tokenizer = learn_tokenizer(examples, size)
    else:
        tokenizer = learn_input_tokenizer(examples, settings.classes, size, settings.tokenizer.algorithm)
    save_tokenizer(tokenizer, tokenizer_folder(folder))
    return Vocabulary(_load_saved(folder), len(tokenizer))


def _training_examples(settings: TrainSettings, stores: OpenStores) -> Iterator[Example]:
    data = settings.data
    if data.examples is not None:
        examples = read_examples(data.examples)
        fits = has_metadata(examples, data.where, f"examples file {data.examples}")
        yield from (example for example, fit in zip(examples, fits, strict=True) if fit)
        return
    (store,) = stores.open_all(data)
    chosen = store.select(metadata=data.where)
    for start in range(0, len(chosen), BLOCK_EXAMPLES):
        yield from store.texts(chosen[start : start + BLOCK_EXAMPLES])
