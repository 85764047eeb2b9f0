"""Models that say how probable each class of a text is: classifiers, and language models that answer with a label.

Knows nothing of metrics.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedConfig

from cache.errors import InputError, SpecMismatchError
from cache.examples.files.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer
from cache.rendering.render import prompt_tokens
from student.classification.labels import class_ids
from student.classification.settings import ClassSettings
from student.classification.source import ClassSource, answer_prompts, frequent_labels
from student.classification.texts import pad_texts, require_readable
from student.evaluation.heldout_examples import HeldoutExamples
from student.models.build import load_student
from student.models.model_parts import hidden_states, logits_of
from student.models.registry import kind_of, read_config
from student.models.rows.layout import PADDING

LogProbs = npt.NDArray[np.float64]


class Predictor(Protocol):
    """A model with the texts that it reads, in the order of `source`. parameters: how many it has."""

    source: ClassSource
    parameters: int

    def log_probs(self, start: int, stop: int) -> LogProbs:
        """Log-probabilities of the classes of the texts start:stop, float64 [texts, classes]."""


def load_predictor(path: str, heldout: HeldoutExamples, classes: ClassSettings) -> Predictor:
    """Load a classifier or a language model, and read the held-out examples for it.

    Raises InputError if there is no such model, SpecMismatchError if it has other classes.
    """
    try:
        config = read_config(path)  # registers the classifiers of this project
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model {path!r}: cannot be loaded as a classifier: {error}") from error
    if kind_of(config).needs_classes:
        return Classifier(path, config, heldout, classes)
    return LabelWriter(path, heldout, classes)


class Classifier:
    """A model with one row of logits for a text."""

    def __init__(self, path: str, config: PreTrainedConfig, heldout: HeldoutExamples, classes: ClassSettings) -> None:
        try:
            self._model = AutoModelForSequenceClassification.from_pretrained(
                path, config=config, dtype=torch.float32, trust_remote_code=False
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"model {path!r}: cannot be loaded as a classifier: {error}") from error
        names = tuple(self._model.config.id2label[i] for i in range(self._model.config.num_labels))
        if names != tuple(classes.labels):
            raise SpecMismatchError(f"model {path!r} has the classes {names}, the job {tuple(classes.labels)}")
        self.source = _source(path, heldout, classes, load_tokenizer(path))
        require_readable(self._model.config, self.source.tokens)
        self.parameters = int(self._model.num_parameters())

    def log_probs(self, start: int, stop: int) -> LogProbs:
        input_ids, mask = pad_texts(self.source.tokens[start:stop], PADDING)
        logits = self._model(input_ids=input_ids, attention_mask=mask).logits
        return np.asarray(torch.log_softmax(logits.double(), -1).numpy())


class LabelWriter:
    """A language model whose answer is a label: a class has the probability of the first tokens of its variants."""

    def __init__(self, path: str, heldout: HeldoutExamples, classes: ClassSettings) -> None:
        tokenizer = load_tokenizer(path)
        ids = class_ids(classes, tokenizer)
        self._ids, self._class_of = torch.from_numpy(ids.ids), ids.class_of
        self.source = _source(path, heldout, classes, tokenizer)
        self._prompts = _prompts(heldout, classes, tokenizer, self.source)
        self._model: Any = load_student(path, len(tokenizer))
        self.parameters = int(self._model.num_parameters())

    def log_probs(self, start: int, stop: int) -> LogProbs:
        prompts, device = self._prompts[start:stop], self._model.device
        input_ids, mask = pad_texts(prompts, PADDING)
        states = hidden_states(self._model, {"input_ids": input_ids.to(device), "attention_mask": mask.to(device)})
        last = torch.tensor([i * input_ids.shape[1] + len(prompt) - 1 for i, prompt in enumerate(prompts)])
        logits = logits_of(self._model, states.index_select(0, last.to(device)))
        log_p = torch.log_softmax(logits.double(), -1)[:, self._ids.to(device)].cpu().numpy()
        sums = np.full((len(prompts), len(self.source.names)), -np.inf)
        for column, c in enumerate(self._class_of):
            sums[:, c] = np.logaddexp(sums[:, c], log_p[:, column])
        return np.asarray(sums - np.logaddexp.reduce(sums, axis=1, keepdims=True))


def _source(path: str, heldout: HeldoutExamples, classes: ClassSettings, tokenizer: Any) -> ClassSource:
    """The examples in the tokens of a model; those of a file are the ones that have a class.

    Raises InputError if more than half of the examples have a label that is no class.
    """
    if heldout.store is None:
        try:
            source = ClassSource.from_examples(read_examples(str(heldout.path)), classes, tokenizer)
        except InputError as error:
            raise InputError(f"model {path!r}: {heldout.name}: {error}") from error
    else:
        source = ClassSource.from_store(heldout.store, classes, heldout.store.load_tokenizer(), tokenizer, ("scored",))
    _require_classes(path, heldout, source)
    return source


def _require_classes(path: str, heldout: HeldoutExamples, source: ClassSource) -> None:
    """Figures of the few examples whose labels the model happens to know would say nothing about the data."""
    without, total = sum(source.unmatched.values()), len(source) + sum(source.left_out.values())
    if 2 * without > total:
        raise InputError(
            f"model {path!r}: {without:,} of {total:,} examples of {heldout.name} have a label that is none of its "
            f"classes ({', '.join(source.names)}): {frequent_labels(source.unmatched)}; evaluate it on examples with "
            "labels of its scale, or give each class the labels that mean it in [classes.labels]"
        )


def _prompts(
    heldout: HeldoutExamples, classes: ClassSettings, tokenizer: Any, source: ClassSource
) -> Sequence[npt.NDArray[np.int64]]:
    """Token ids before the answer to each example, int64 [n]: those of the store, if it has this tokenizer."""
    if heldout.store is not None and heldout.has_tokenizer(tokenizer):
        stored = answer_prompts(heldout.store, classes, ("scored",))
        return [stored[example.identity] for example in source.examples]
    if classes.at == "label":
        raise InputError(
            'classes.at = "label" is a place in a written answer, which only a store of this model\'s tokenizer has; '
            'give such a store, or classes.at = "response"'
        )
    return [prompt_tokens(example, tokenizer).astype(np.int64) for example in source.examples]
