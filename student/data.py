"""Records to tensors: which rows count, padding, and the batch of a step. Knows nothing of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import InputError, StoreError
from cache.example import Example, Segment, TokenizedExample
from cache.reader import LogitStore
from cache.record import Record
from cache.rendering import Tokenizer, render
from cache.targets import empty_targets
from student.config import DataSettings


class ExampleSource(Protocol):
    """A sequence of records whose sizes are known without reading them.

    tokens, rows: int64 [examples], all tokens of each and rows that carry a loss. left_out: examples that do not fit.
    """

    tokens: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    left_out: int

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Record: ...


class StoreSource:
    """The examples of a store's snapshot that a run asks for."""

    def __init__(self, store: LogitStore, settings: DataSettings, on_prompt: bool = False) -> None:
        kinds = set(settings.origins)
        wanted = [i for i, e in enumerate(store.examples) if e.origin.partition("/")[0] in kinds]
        self._indices = [
            i for i in wanted if store.examples[i].tokens <= settings.max_tokens and store.examples[i].rows
        ]
        self.left_out = len(wanted) - len(self._indices)
        self.store = store
        if not self._indices:
            raise StoreError(f"{store.storage}: no example with origin {' or '.join(sorted(kinds))} fits")
        self.tokens = np.array([store.examples[i].tokens for i in self._indices])
        rows = [store.examples[i].tokens - 1 if on_prompt else store.examples[i].rows for i in self._indices]
        self.rows = np.array(rows)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Record:
        return self.store[self._indices[i]]


class FileSource:
    """Examples with their responses as written; no teacher, so hard labels only."""

    def __init__(
        self, examples: Sequence[Example], tokenizer: Tokenizer, settings: DataSettings, on_prompt: bool = False
    ) -> None:
        rendered = [render(example, tokenizer) for example in examples]
        self._rendered = [r for r in rendered if len(r.tokens) <= settings.max_tokens and label_rows(r).size]
        self.left_out = len(rendered) - len(self._rendered)
        if not self._rendered:
            raise InputError(f"examples file {settings.examples}: no example has a response that fits max_tokens")
        self.tokens = np.array([len(r.tokens) for r in self._rendered])
        self.rows = np.array([label_rows(r, on_prompt).size for r in self._rendered])

    def __len__(self) -> int:
        return len(self._rendered)

    def __getitem__(self, i: int) -> Record:
        example = self._rendered[i]
        n = len(example.tokens)
        return Record(example.key, example, empty_targets(n), np.full(n, np.nan, np.float32))


def label_rows(tokenized: TokenizedExample, on_prompt: bool = False) -> npt.NDArray[np.int64]:
    """Rows whose next token is learned, int64 [rows]: those of the response, or all with `on_prompt`."""
    return np.flatnonzero((tokenized.segments[1:] != Segment.PROMPT) | on_prompt)


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch of B examples padded on the right to length L, and its R rows that carry a loss.

    input_ids int64 [B, L]. rows int64 [R]: positions in the flattened [B * L]. labels int64 [R]: the next token.
    ids int64 [R, K], log_p float32 [R, K] (-inf where padded), log_tail float32 [R]; K = 0 without a teacher.
    """

    input_ids: Tensor
    rows: Tensor
    labels: Tensor
    ids: Tensor
    log_p: Tensor
    log_tail: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__slots__))


def collate(records: Sequence[Record], with_targets: bool, on_prompt: bool = False) -> Batch:
    """Pad on the right: under a causal mask no real token sees the padding, so none needs a mask."""
    length = max(len(record.tokenized.tokens) for record in records)
    input_ids = np.zeros((len(records), length), np.int64)
    rows, labels, ids, log_p, log_tail = [], [], [], [], []
    width = max((int(r.targets.counts.max(initial=0)) for r in records), default=0) if with_targets else 0
    for b, record in enumerate(records):
        tokens = record.tokenized.tokens
        input_ids[b, : len(tokens)] = tokens
        picked = label_rows(record.tokenized, on_prompt)
        if with_targets:
            picked = picked[record.targets.counts[picked] > 0]
            held_ids, held_log_p = _dense(record, picked, width)
            ids.append(held_ids)
            log_p.append(held_log_p)
            log_tail.append(record.targets.log_tail[picked])
        rows.append(b * length + picked)
        labels.append(tokens[picked + 1].astype(np.int64))
    count = sum(map(len, rows))
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(labels)),
        torch.from_numpy(np.concatenate(ids)) if ids else torch.zeros(count, 0, dtype=torch.int64),
        torch.from_numpy(np.concatenate(log_p)) if log_p else torch.zeros(count, 0),
        torch.from_numpy(np.concatenate(log_tail)) if log_tail else torch.zeros(count),
    )


def _dense(
    record: Record, picked: npt.NDArray[np.int64], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Entries of the picked rows as [rows, width] arrays."""
    targets = record.targets
    ids = np.zeros((len(picked), width), np.int64)
    log_p = np.full((len(picked), width), -np.inf, np.float32)
    place = targets.offsets[picked, None] + np.arange(width)
    held = np.arange(width) < targets.counts[picked, None]
    ids[held] = targets.ids[place[held]]
    log_p[held] = targets.logprobs[place[held]]
    return ids, log_p
