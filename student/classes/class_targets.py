"""Class probabilities from a teacher's stored distribution: that of its answer's first token, over the labels alone.

A class has the mass of all tokens that its variants begin with, whatever would have followed them. What a store left
out counts as nothing, and how much that can be is told beside it.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from cache.errors import InputError, StoreError
from cache.examples.example import Example, Segment
from cache.examples.tokenizers import Tokenizer
from cache.rows.sparse_targets import SparseTargets
from cache.settings import Settings
from cache.store.logit_store import LogitStore


def default_variants(name: str) -> tuple[str, ...]:
    """How a teacher may write a class's name: as it is and capitalised, with and without a space before it."""
    written = dict.fromkeys([name, name[:1].upper() + name[1:]])
    return tuple(space + word for space in ("", " ") for word in written)


def _with_variants(value: Any) -> Any:
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        if repeated := [name for i, name in enumerate(value) if name in value[:i]]:
            raise ValueError(f"class {repeated[0]!r} is named twice")
        return {name: default_variants(name) for name in value}
    return value


Variants = Annotated[tuple[str, ...], Field(min_length=1)]


class ClassSettings(Settings):
    """Classes, where the teacher names them, and what a student reads.

    labels: class name -> texts as the teacher would write them at the answer, or a list of names (default_variants).
        In order of grade, where there is one: metrics such as QWK count the steps between classes.
    at: "label", the first token of the LABEL segment, which a job with an answer marker sets; "response", the first
        token of the (last) response.
    """

    labels: Annotated[dict[str, Variants], BeforeValidator(_with_variants), Field(min_length=2)]
    at: Literal["label", "response"] = "response"
    input: Literal["last_turn", "all_turns"] = Field(
        "last_turn", description="turns of the prompt that a student reads"
    )
    max_tokens: int = Field(256, ge=1, description="longer texts are cut on the right, and counted")
    min_covered: float = Field(0.0, ge=0, lt=1, description="least mass of the labels; rows with less are left out")


@dataclass(frozen=True, slots=True)
class ClassIds:
    """Classes as token ids: the class of ids[i], int64 [V] ascending, is class_of[i], int64 [V]."""

    names: tuple[str, ...]
    ids: npt.NDArray[np.int64]
    class_of: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassRows:
    """What N rows say of C classes.

    log_probs: float32 [N, C] in nats, normalised over the classes; -inf where no id of a class is stored, and NaN in
        rows that are not known.
    covered: float32 [N], mass of all classes before that. missed: float32 [N], most that it can be too small by: an id
        that is not stored has at most the smallest stored probability, and all of them at most the tail.
    known: bool [N], whether any id of a class is stored.
    """

    log_probs: npt.NDArray[np.float32]
    covered: npt.NDArray[np.float32]
    missed: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.known)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "ClassRows":
        """The rows of a mask, or with these indices."""
        return ClassRows(self.log_probs[rows], self.covered[rows], self.missed[rows], self.known[rows])


def class_ids(settings: ClassSettings, tokenizer: Tokenizer) -> ClassIds:
    """First token of each variant in the teacher's tokenizer. Raises InputError where two classes share one."""
    names = tuple(settings.labels)
    owner: dict[int, tuple[int, str]] = {}
    for c, (name, variants) in enumerate(settings.labels.items()):
        for variant in variants:
            token = _first_token(name, variant, tokenizer)
            other, text = owner.setdefault(token, (c, variant))
            if other != c:
                raise InputError(
                    f"classes {names[other]!r} and {name!r}: the variants {text!r} and {variant!r} both begin with "
                    f"token {token} ({tokenizer.decode([token])!r}), so their mass cannot be told apart; have the "
                    "teacher answer with label words that begin differently, such as the letters ' A' and ' B', or "
                    "give only the variants that it writes"
                )
    ids = sorted(owner)
    return ClassIds(names, np.array(ids, np.int64), np.array([owner[i][0] for i in ids], np.int64))


def _first_token(name: str, variant: str, tokenizer: Tokenizer) -> int:
    if not variant.strip():
        raise InputError(f"class {name!r}: the variant {variant!r} is empty; give the text that the teacher writes")
    # As after a line break: a SentencePiece tokenizer would put a space before a text that stands alone.
    before = tokenizer("\n", add_special_tokens=False)["input_ids"]
    ids = tokenizer("\n" + variant, add_special_tokens=False)["input_ids"]
    if ids[: len(before)] != before or ids[len(before) :][:1] in ([], [tokenizer.unk_token_id]):
        raise InputError(f"class {name!r}: the teacher's tokenizer has no token of its own that begins {variant!r}")
    return int(ids[len(before)])


def label_spellings(settings: ClassSettings) -> dict[str, int]:
    """Class index by name and variant, stripped and case folded. Raises InputError where two classes share one."""
    spellings: dict[str, int] = {}
    for c, (name, variants) in enumerate(settings.labels.items()):
        for text in (name, *variants):
            if spellings.setdefault(text.strip().casefold(), c) != c:
                other = list(settings.labels)[spellings[text.strip().casefold()]]
                raise InputError(f"classes {other!r} and {name!r} are both written {text.strip()!r}; keep one of them")
    return spellings


def true_class(example: Example, spellings: dict[str, int]) -> int:
    """Index of the example's label; -1 where it has none, or one that is no class."""
    return spellings.get(example.label.strip().casefold(), -1)


def answer_row(segments: npt.NDArray[np.uint8], at: Literal["label", "response"], name: str) -> int:
    """The row whose distribution is that of the answer's first token. segments: uint8 [n].

    Of several responses, as in a chat that was scored whole, the last one counts. Raises InputError naming the example
    where there is no such token, or no row before it.
    """
    wanted = Segment.LABEL if at == "label" else Segment.RESPONSE
    spoken = np.flatnonzero(segments != Segment.PROMPT)
    # Where the last run of what is not prompt starts.
    start = int(spoken[np.append(True, np.diff(spoken) > 1)][-1]) if len(spoken) else len(segments)
    found = np.flatnonzero(segments[start:] == wanted)
    if not len(found) or start + found[0] == 0:
        raise InputError(
            f"example {name}: no token of segment {wanted.name} with a row before it; capture with an answer marker "
            'that the teacher keeps to, or choose another "at"'
        )
    return int(start + found[0] - 1)


def require_class_targets(store: LogitStore) -> None:
    """Raise StoreError where a store has no exact entries to take class probabilities from."""
    targets = store.spec.targets
    if targets.mode == "sampled":
        raise StoreError(
            f"{store.storage} holds sampled targets: each entry is an unbiased estimate, but a ratio of few of them, "
            "which class probabilities are, is not; capture topk or nucleus targets"
        )
    if targets.most_entries == 0:
        raise StoreError(f"{store.storage} holds texts without targets; train from an examples file on hard labels")


def class_log_probs(targets: SparseTargets, ids: ClassIds) -> ClassRows:
    """Class probabilities of each row: the probabilities of a class's ids summed, then normalised over the classes.

    Exact entries alone count. A sampled one, below the threshold of its store, is as good as absent: drawn or not by
    chance, it would make the ratio biased, while an absent id is bounded.
    """
    n, classes = len(targets), len(ids.names)
    rows, exact = targets.row_of_entry, targets.exact_counts
    place = np.minimum(np.searchsorted(ids.ids, targets.ids), len(ids.ids) - 1)
    found = (ids.ids[place] == targets.ids) & (targets.rank_of_entry < np.repeat(exact, targets.counts))
    p = np.exp(targets.logprobs[found].astype(np.float64))
    mass = np.bincount(rows[found] * classes + ids.class_of[place[found]], weights=p, minlength=n * classes)
    mass = mass.reshape(n, classes)
    covered = mass.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_probs = np.log(mass) - np.log(covered)[:, None]
    least = np.ones(n)
    led = np.flatnonzero(exact)
    least[led] = np.exp(targets.logprobs[targets.offsets[led] + exact[led] - 1].astype(np.float64))
    absent = len(ids.ids) - np.bincount(rows[found], minlength=n)
    missed = np.minimum(absent * least, np.exp(targets.log_tail.astype(np.float64)))
    return ClassRows(log_probs.astype(np.float32), covered.astype(np.float32), missed.astype(np.float32), covered > 0)
