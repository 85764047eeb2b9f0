"""The prompts that a student continues while it learns."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedConfig

from cache.errors import InputError
from cache.examples.example import prompt_length
from cache.examples.files.jsonl import read_examples
from cache.examples.tokenizers import decode
from cache.rendering.render import prompt_tokens
from student.data.sources import Examples
from student.models.generation import fits_positions
from student.training.planning.vocabulary import Vocabulary
from student.training.settings import SampleSettings

BLOCK = 64
# Examples that are looked at for each prompt: where few prompts differ, a store is not read to its end.
SEARCHED = 64


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """tokens: of the prompt, uint32 [n]. reference: what the example answers, as text; "" if it answers nothing."""

    tokens: npt.NDArray[np.uint32]
    reference: str


def sample_prompts(
    settings: SampleSettings, source: Examples, vocabulary: Vocabulary, config: PreTrainedConfig
) -> list[SamplePrompt]:
    """The first different prompts that the model has positions for, with its answer.

    source: examples in the student's tokens; settings.examples is read in their place if the job names it.
    Raises InputError if there is none.
    """
    found: dict[bytes, SamplePrompt] = {}
    prompts = _of_source(source, vocabulary) if settings.examples is None else _of_file(settings, vocabulary)
    for prompt in islice(prompts, SEARCHED * settings.count):
        if fits_positions(config, len(prompt.tokens), settings.max_new_tokens):
            found.setdefault(prompt.tokens.tobytes(), prompt)
        if len(found) == settings.count:
            break
    if not found:
        where = "the examples of the job" if settings.examples is None else str(settings.examples)
        raise InputError(
            f"samples: the model has no positions for the first prompts of {where} with samples.max_new_tokens = "
            f"{settings.max_new_tokens:,} tokens after them; lower it, or name shorter prompts in samples.examples"
        )
    return list(found.values())


def _of_file(settings: SampleSettings, vocabulary: Vocabulary) -> Iterator[SamplePrompt]:
    for example in read_examples(str(settings.examples)):
        reference = example.rationale + example.response
        yield SamplePrompt(prompt_tokens(example, vocabulary.tokenizer, vocabulary.form), reference)


def _of_source(source: Examples, vocabulary: Vocabulary) -> Iterator[SamplePrompt]:
    for start in range(0, len(source), BLOCK):
        for window in source.read(range(start, min(start + BLOCK, len(source)))):
            n = max(1, prompt_length(window.segments))  # nothing can follow an empty prompt
            yield SamplePrompt(window.tokens[:n], decode(window.tokens[n:], vocabulary.tokenizer))
