"""The average of several teachers of one vocabulary: of their targets, and of their stores, as one store."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.examples.example import Example
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import StoreSpec
from cache.store.logit_store import LogitStore
from student.data.average_rows import average_rows

# Rows averaged at a time: few enough that their entries stay in the processor's cache.
ROWS_PER_BLOCK = 512


def average(targets: Sequence[SparseTargets], weights: Sequence[float]) -> SparseTargets:
    """Average the targets of several teachers for the same n rows: p(id) = sum_a w_a p_a(id), with sum_a w_a = 1.

    Exact targets (topk, nucleus): the entries are the union of the teachers' entries, all exact. A teacher without an
    id adds 0 to it, and that mass stays in the tail. So an entry is a lower bound. It is too low by at most the sum of
    w_a min(smallest stored p_a, tail_a) over the teachers a without the id. The tail, sum_a w_a tail_a, is an upper
    bound of the mass outside the union. Entries and tail have a total mass of 1.

    Unbiased targets (threshold, sampled): exp(logprob) over all entries is an unbiased estimate of p, as the weighted
    sum of unbiased estimates. Entries that are exact for every teacher are exact; all others are sampled. The tail is
    the mass outside the exact entries.

    A row without entries from some teacher has no entries. Entropy and log-normalisers are None, because those of the
    average cannot be computed from the teachers'. Entries of equal log-probability are sorted by id.
    Raises InputError for exact together with unbiased targets, and if `normalize_weights` does.
    """
    shares = normalize_weights(weights, len(targets))
    n = len(targets[0])
    if any(len(each) != n for each in targets):
        raise InputError(
            f"teachers with {[len(each) for each in targets]} rows cannot be averaged; give the same rows of each"
        )
    kinds = {each.exact is not None for each in targets if len(each.ids)}
    if len(kinds) > 1:
        raise InputError(
            "exact targets (topk, nucleus) and unbiased ones (threshold, sampled) cannot be averaged, because the "
            "result is neither a bound nor an unbiased estimate; capture all teachers with targets of one kind"
        )
    return concatenate(
        [
            average_rows(
                [each.rows(row, min(row + ROWS_PER_BLOCK, n)) for each in targets], shares, unbiased=kinds == {True}
            )
            for row in range(0, n, ROWS_PER_BLOCK)
        ]
    )


def normalize_weights(weights: Sequence[float], teachers: int) -> npt.NDArray[np.float64]:
    """Divide the weights by their sum, float64 [teachers]. Raises InputError unless each teacher has one above 0."""
    if not teachers or len(weights) != teachers or not all(0 < weight < math.inf for weight in weights):
        raise InputError(f"an average of {teachers} teachers needs a positive weight for each, not {list(weights)}")
    return np.array(weights, np.float64) / math.fsum(weights)


class AveragedStores:
    """The stores of several teachers as one, with averaged targets for the scored examples that all of them contain.

    Examples are matched by key, in the order of the first store. Generated responses are left out: their key comes from
    prompt and number, so each teacher has another text under the same key. Uses 8 bytes a store and example.

    spec: that of the first store, without what an average does not have; `asked` is "all" if it is in every store.
    storage: names of all stores, for messages. left_out: number of keys in any store that are not here.
    """

    def __init__(self, stores: Sequence[LogitStore], weights: Sequence[float]) -> None:
        """Raises SpecMismatchError if the stores differ, StoreError if one has no targets or they share no example."""
        self._log_shares = np.log(normalize_weights(weights, len(stores)))
        self._weights = tuple(weights)
        self._stores = tuple(stores)
        self.storage = " + ".join(str(store.storage) for store in stores)
        self.spec = _common_spec(stores)
        self._indices, self.left_out = _match_examples(stores)
        if not len(self):
            raise StoreError(
                f"{self.storage}: no scored example is in all of these stores; capture the same examples "
                "with every teacher"
            )

    def __len__(self) -> int:
        return len(self._indices[0])

    @property
    def tokens(self) -> npt.NDArray[np.uint32]:
        """Tokens of each example, uint32 [examples]."""
        return np.asarray(self._stores[0].tokens[self._indices[0]])

    @property
    def rows(self) -> npt.NDArray[np.uint32]:
        """Maximum number of rows of each example with a target, uint32 [examples]: the minimum over the stores."""
        rows = [store.rows[indices] for store, indices in zip(self._stores, self._indices, strict=True)]
        return np.asarray(np.minimum.reduce(rows))

    def has_origin(self, kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each example has one of these origins, bool [examples]. All are "scored"."""
        return np.asarray(self._stores[0].has_origin(kinds)[self._indices[0]])

    def read(self, examples: Sequence[int]) -> list[Window]:
        """All tokens of each of the examples, in the requested order, with averaged targets.

        token_logprobs are averaged as probabilities too, NaN where a store has NaN. Raises StoreError if the tokens of
        two stores differ.
        """
        if not len(examples):
            return []
        requested = self._indices[:, list(examples)]
        windows_of = [store.read(indices.tolist()) for store, indices in zip(self._stores, requested, strict=True)]
        for i, windows in enumerate(zip(*windows_of, strict=True)):
            self._require_same_tokens(int(requested[0, i]), windows)
        targets = average(
            [concatenate([window.targets for window in windows]) for windows in windows_of], self._weights
        )
        token_logprobs = [
            np.concatenate([window.token_logprobs for window in windows]).astype(np.float64) for windows in windows_of
        ]
        with np.errstate(invalid="ignore"):  # logaddexp warns of NaN
            logprobs = np.logaddexp.reduce(np.stack(token_logprobs) + self._log_shares[:, None], axis=0).astype(
                np.float32
            )
        ends = np.cumsum([len(window) for window in windows_of[0]]).tolist()
        return [
            Window(window.tokens, window.segments, targets.rows(start, end), logprobs[start:end])
            for window, start, end in zip(windows_of[0], [0, *ends], ends, strict=False)
        ]

    def texts(self, examples: Sequence[int]) -> list[Example]:
        """The texts of each of the examples, from the first store."""
        return self._stores[0].texts(self._indices[0, list(examples)])

    def __getitem__(self, i: int) -> Record:
        """An example with its texts, from the first store."""
        record = self._stores[0][int(self._indices[0, i])]
        (window,) = self.read([i])
        return replace(record, targets=window.targets, token_logprobs=window.token_logprobs)

    def _require_same_tokens(self, i: int, windows: Sequence[Window]) -> None:
        """Raise StoreError unless the windows of an example, example i of the first store, have the same tokens."""
        first, *others = windows
        if not all(
            np.array_equal(first.tokens, other.tokens) and np.array_equal(first.segments, other.segments)
            for other in others
        ):
            raise StoreError(
                f"{self.storage}: example {self._stores[0].key(i)} has different tokens in these stores; capture it "
                "again with every teacher"
            )


def _common_spec(stores: Sequence[LogitStore]) -> StoreSpec:
    """The spec of the averaged store. Raises StoreError and SpecMismatchError as AveragedStores does."""
    for store in stores:
        if not store.spec.targets.max_entries:
            raise StoreError(f"{store.storage} has texts without targets, so nothing to average; leave it out")
        properties = _common_properties(store.spec)
        for name, expected in _common_properties(stores[0].spec).items():
            if properties[name] != expected:
                raise SpecMismatchError(
                    f"{name}: {expected!r} in {stores[0].storage}, {properties[name]!r} in {store.storage}; teachers "
                    "to average need the same vocabulary and kind of targets"
                )
    spec = stores[0].spec
    return replace(
        spec,
        asked="all" if all(store.spec.asked == "all" for store in stores) else "assistant",
        targets=replace(spec.targets, entropy=False, temperatures=()),
    )


def _common_properties(spec: StoreSpec) -> dict[str, object]:
    """What must be equal in all stores, by its name in messages."""
    kind = "unbiased (threshold, sampled)" if spec.targets.has_sampled else "exact (topk, nucleus)"
    return {"tokenizer": spec.tokenizer, "vocab_size": spec.vocab_size, "kind of targets": kind}


def _match_examples(stores: Sequence[LogitStore]) -> tuple[npt.NDArray[np.int64], int]:
    """Find the scored examples of all stores: their indices, int64 [stores, examples], and the number of other keys."""
    keys = np.concatenate([store.index.key for store in stores]).view(np.uint64)
    order = np.lexsort(keys.T)
    is_new = np.ones(len(keys), bool)
    is_new[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    number = np.empty(len(keys), np.int64)
    number[order] = np.cumsum(is_new) - 1
    indices = np.full((len(stores), np.count_nonzero(is_new)), -1)
    store_of = np.repeat(np.arange(len(stores)), [len(store) for store in stores])
    indices[store_of, number] = np.concatenate(
        [np.where(store.has_origin(["scored"]), np.arange(len(store)), -1) for store in stores]
    )
    common = indices[:, (indices >= 0).all(axis=0)]
    return common[:, np.argsort(common[0])], indices.shape[1] - common.shape[1]
