"""Several teachers of one vocabulary, averaged in probability: their targets, and their stores as one."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import StoreSpec
from cache.store.logit_store import LogitStore
from student.data.average_rows import merge

# Rows averaged together: few enough that their entries stay in the processor's cache.
ROWS = 512


def average(targets: Sequence[SparseTargets], weights: Sequence[float]) -> SparseTargets:
    """The targets of several teachers of the same n rows as one: p(id) = sum_a w_a p_a(id), the weights summing to 1.

    Exact targets (topk, nucleus): the entries are the union of the teachers', all exact. A teacher that lacks an id
    counts as 0 there, and its mass of it stays in the tail. So an entry is a lower bound, low by at most the sum over
    the teachers a that lack it of w_a min(the least p_a that a kept, tail_a); the tail, sum_a w_a tail_a, is an upper
    bound of the mass outside the union; and both together hold a mass of 1.

    Unbiased targets (threshold, sampled): exp(logprob) over all entries is an unbiased estimate of p, being the
    weighted sum of the teachers' unbiased estimates. Exact are the entries that are exact in every teacher; all others
    count as sampled. The tail is the mass outside the exact ones.

    A row that some teacher has no entries for has none: a target needs all teachers. Entropy and log-normalisers are
    None: those of the average do not follow from the teachers'. Entries of equal log-probability stand by id.
    Raises InputError for exact and unbiased targets together, and where `shares_of` does.
    """
    shares = shares_of(weights, len(targets))
    n = len(targets[0])
    if any(len(each) != n for each in targets):
        raise InputError(f"teachers of {[len(each) for each in targets]} rows cannot be averaged; give the same rows")
    kinds = {each.exact is not None for each in targets if len(each.ids)}
    if len(kinds) > 1:
        raise InputError(
            "exact targets (topk, nucleus) and unbiased ones (threshold, sampled) cannot be averaged: the result would "
            "be neither a bound nor an unbiased estimate; capture all teachers with targets of one kind"
        )
    return concatenate(
        [
            merge([each.rows(row, min(row + ROWS, n)) for each in targets], shares, unbiased=kinds == {True})
            for row in range(0, n, ROWS)
        ]
    )


def shares_of(weights: Sequence[float], teachers: int) -> npt.NDArray[np.float64]:
    """The weights over their sum, float64 [teachers]. Raises InputError unless each teacher has one above 0."""
    if not teachers or len(weights) != teachers or not all(0 < weight < math.inf for weight in weights):
        raise InputError(f"an average of {teachers} teachers needs a positive weight for each, found {list(weights)}")
    return np.array(weights, np.float64) / math.fsum(weights)


class AveragedStores:
    """Stores of several teachers as one source, with averaged targets: the scored examples that all of them hold.

    The order is that of the first store, matched by key. A response that a teacher wrote is left out: its key is that
    of its prompt and number, so under one key every teacher has a text of its own. Holds 8 bytes a store and example.

    spec: the first store's, without what an average does not have; `asked` is "all" where it is in every store.
    storage: all places, for messages. left_out: examples of any store, each key once, that are not here.
    """

    def __init__(self, stores: Sequence[LogitStore], weights: Sequence[float]) -> None:
        """Raises SpecMismatchError, and StoreError where a store has no targets or no example is common."""
        self._log_shares = np.log(shares_of(weights, len(stores)))
        self._weights = tuple(weights)
        self._stores = tuple(stores)
        self.storage = " + ".join(str(store.storage) for store in stores)
        self.spec = _common_spec(stores)
        self._places, self.left_out = _common(stores)
        if not len(self):
            raise StoreError(
                f"{self.storage}: no scored example is in all of them; capture the same examples with every teacher"
            )

    def __len__(self) -> int:
        return len(self._places[0])

    @property
    def tokens(self) -> npt.NDArray[np.uint32]:
        """Tokens of each example, uint32 [examples]."""
        return np.asarray(self._stores[0].tokens[self._places[0]])

    @property
    def rows(self) -> npt.NDArray[np.uint32]:
        """Most rows of each example that may have a target, uint32 [examples]: the fewest that a store has."""
        rows = [store.rows[places] for store, places in zip(self._stores, self._places, strict=True)]
        return np.asarray(np.minimum.reduce(rows))

    def has_origin(self, kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which examples are of one of the kinds, bool [examples]. All are "scored"."""
        return np.asarray(self._stores[0].has_origin(kinds)[self._places[0]])

    def read(self, examples: Sequence[int]) -> list[Window]:
        """All tokens of each of the examples, in the order asked for, with averaged targets.

        token_logprobs are averaged in probability too, NaN where a store has NaN. Raises StoreError where the tokens
        of two stores differ.
        """
        if not len(examples):
            return []
        wanted = self._places[:, list(examples)]
        read = [store.read(places.tolist()) for store, places in zip(self._stores, wanted, strict=True)]
        for i, (first, *others) in enumerate(zip(*read, strict=True)):
            if not all(
                np.array_equal(first.tokens, other.tokens) and np.array_equal(first.segments, other.segments)
                for other in others
            ):
                key = self._stores[0].key(int(wanted[0, i]))
                raise StoreError(f"{self.storage}: example {key} has other tokens in each; one of them is altered")
        targets = average([concatenate([window.targets for window in windows]) for windows in read], self._weights)
        own = [np.concatenate([window.token_logprobs for window in windows]).astype(np.float64) for windows in read]
        with np.errstate(invalid="ignore"):  # logaddexp warns of NaN
            logprobs = np.logaddexp.reduce(np.stack(own) + self._log_shares[:, None], axis=0).astype(np.float32)
        ends = np.cumsum([len(window) for window in read[0]]).tolist()
        return [
            Window(window.tokens, window.segments, targets.rows(start, end), logprobs[start:end])
            for window, start, end in zip(read[0], [0, *ends], ends, strict=False)
        ]

    def __getitem__(self, i: int) -> Record:
        """An example with its texts, those of the first store."""
        record = self._stores[0][int(self._places[0, i])]
        (window,) = self.read([i])
        return replace(record, targets=window.targets, token_logprobs=window.token_logprobs)


def _common_spec(stores: Sequence[LogitStore]) -> StoreSpec:
    for store in stores:
        if not store.spec.targets.max_entries:
            raise StoreError(f"{store.storage} holds texts without targets: nothing to average")
        for (field, here), there in zip(_compared(stores[0].spec).items(), _compared(store.spec).values(), strict=True):
            if here != there:
                raise SpecMismatchError(
                    f"{field}: {here!r} in {stores[0].storage}, {there!r} in {store.storage}; teachers are averaged "
                    "over one vocabulary and one kind of targets"
                )
    spec = stores[0].spec
    return replace(
        spec,
        asked="all" if all(store.spec.asked == "all" for store in stores) else "assistant",
        targets=replace(spec.targets, entropy=False, temperatures=()),
    )


def _compared(spec: StoreSpec) -> dict[str, object]:
    kind = "unbiased (threshold, sampled)" if spec.targets.has_sampled else "exact (topk, nucleus)"
    return {"tokenizer": spec.tokenizer, "vocab_size": spec.vocab_size, "kind of targets": kind}


def _common(stores: Sequence[LogitStore]) -> tuple[npt.NDArray[np.int64], int]:
    """Where each store has the scored examples of all, int64 [stores, examples], and how many other keys there are."""
    keys = np.concatenate([store.index.key for store in stores]).view(np.uint64)
    order = np.lexsort(keys.T)
    fresh = np.ones(len(keys), bool)
    fresh[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    number = np.empty(len(keys), np.int64)
    number[order] = np.cumsum(fresh) - 1
    places = np.full((len(stores), np.count_nonzero(fresh)), -1)
    store_of = np.repeat(np.arange(len(stores)), [len(store) for store in stores])
    places[store_of, number] = np.concatenate(
        [np.where(store.has_origin(["scored"]), np.arange(len(store)), -1) for store in stores]
    )
    common = places[:, (places >= 0).all(axis=0)]
    return common[:, np.argsort(common[0])], places.shape[1] - common.shape[1]
