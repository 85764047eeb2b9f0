"""The labels of classes: as token ids of the teacher, and as texts of examples."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.tokenizers import Tokenizer
from student.classification.settings import ClassSettings


@dataclass(frozen=True, slots=True)
class ClassIds:
    """Classes as token ids: the class of ids[i], int64 [V] ascending, is class_of[i], int64 [V]."""

    names: tuple[str, ...]
    ids: npt.NDArray[np.int64]
    class_of: npt.NDArray[np.int64]


def class_ids(settings: ClassSettings, tokenizer: Tokenizer) -> ClassIds:
    """The first token of each variant in the teacher's tokenizer. Raises InputError if two classes share a token."""
    names = tuple(settings.labels)
    owner: dict[int, tuple[int, str]] = {}
    for c, (name, variants) in enumerate(settings.labels.items()):
        for variant in variants:
            token = first_token(name, variant, tokenizer)
            other, text = owner.setdefault(token, (c, variant))
            if other != c:
                raise InputError(
                    f"classes {names[other]!r} and {name!r}: the variants {text!r} and {variant!r} both begin with "
                    f"token {token} ({tokenizer.decode([token])!r}), so their probabilities cannot be separated; have "
                    "the teacher answer with label words that begin differently, such as the letters ' A' and ' B', or "
                    "give only the variants that it writes"
                )
    ids = sorted(owner)
    return ClassIds(names, np.array(ids, np.int64), np.array([owner[i][0] for i in ids], np.int64))


def first_token(name: str, variant: str, tokenizer: Tokenizer) -> int:
    """The id of the token that a variant begins with. Raises InputError, naming the class, if there is none."""
    if not variant.strip():
        raise InputError(f"class {name!r}: the variant {variant!r} is empty; give the text that the teacher writes")
    # After a line break: a SentencePiece tokenizer would put a space before a text that stands alone.
    before = tokenizer("\n", add_special_tokens=False)["input_ids"]
    ids = tokenizer("\n" + variant, add_special_tokens=False)["input_ids"]
    if ids[: len(before)] != before or ids[len(before) :][:1] in ([], [tokenizer.unk_token_id]):
        raise InputError(f"class {name!r}: the teacher's tokenizer has no token of its own that begins {variant!r}")
    return int(ids[len(before)])


def label_spellings(settings: ClassSettings) -> dict[str, int]:
    """Class index by name and variant, stripped and case folded. Raises InputError if two classes share a spelling."""
    spellings: dict[str, int] = {}
    for c, (name, variants) in enumerate(settings.labels.items()):
        for text in (name, *variants):
            if spellings.setdefault(text.strip().casefold(), c) != c:
                other = list(settings.labels)[spellings[text.strip().casefold()]]
                raise InputError(f"classes {other!r} and {name!r} are both written {text.strip()!r}; keep one of them")
    return spellings


def true_class(example: Example, spellings: dict[str, int]) -> int:
    """Class index of the example's label; -1 if it has no label, or one that is no class."""
    return spellings.get(example.label.strip().casefold(), -1)
