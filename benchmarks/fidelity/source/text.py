"""Text for a real teacher: named files, cut into sequences of one length, and a held-out part of each."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import read_examples
from cache.rendering.render import render

# Of every so many sequences of a text, one is held out.
HELD_OUT_EVERY = 10


@dataclass(frozen=True, slots=True)
class Texts:
    """train, held: int64 [N, L]. train_kinds, held_kinds: int64 [N], index into `names`."""

    names: tuple[str, ...]
    train: Tensor
    train_kinds: Tensor
    held: Tensor
    held_kinds: Tensor


def load_texts(sources: list[str], tokenizer: Any, length: int, held_out: int, most: int | None = None) -> Texts:
    """Sequences of each NAME=FILE,FILE or NAME=FILE:COLUMNS,FILE:COLUMNS, in a random order.

    held_out: at most so many of each text. most: of its other sequences, the first so many alone. Held-out sequences
    are neighbours at the end of a text, so that none has its beginning in the training part.
    """
    names: list[str] = []
    train, held = [], []
    for source in sources:
        name, separator, files = source.partition("=")
        if not separator:
            raise InputError(f"--text {source!r}: give NAME=FILE or NAME=FILE:COLUMN+COLUMN")
        pieces = torch.cat([sequences_of(file, tokenizer, length) for file in files.split(",")])
        count = min(held_out, len(pieces) // HELD_OUT_EVERY)
        if not count:
            raise InputError(f"--text {source!r}: {len(pieces)} sequences of {length} tokens are too few; at least "
                             f"{HELD_OUT_EVERY} are needed")  # fmt: skip
        names.append(name)
        train.append(pieces[:-count][:most])
        held.append(pieces[-count:])
    tokens, kinds = (torch.cat(train), kinds_of(train))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(tokens)))
    return Texts(tuple(names), tokens[order], kinds[order], torch.cat(held), kinds_of(held))


def kinds_of(parts: list[Tensor]) -> Tensor:
    """The number of the part of each sequence."""
    return torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)])


def sequences_of(source: str, tokenizer: Any, length: int) -> Tensor:
    """Int64 [N, length]: the rendered examples one after another, cut. The last piece, if shorter, is left out."""
    file, columns = split_columns(source)
    tokens = np.concatenate([render(e, tokenizer).tokens for e in examples_of(Path(file), columns)]).astype(np.int64)
    count = len(tokens) // length
    return torch.from_numpy(tokens[: count * length].reshape(count, length))


def split_columns(source: str) -> tuple[str, list[str]]:
    """FILE or FILE:COLUMN+COLUMN."""
    file, separator, columns = source.rpartition(":")
    return (file, columns.split("+")) if separator else (source, [])


def examples_of(path: Path, columns: list[str]) -> Iterator[Example]:
    """Examples of JSON Lines in the product's form; or of columns of a file: a prompt and its response, or a text.

    A single column is the response to a request for such a text.
    """
    if not path.is_file():
        raise InputError(f"--text: no file {path}")
    if not columns:
        yield from read_examples(path)
        return
    for number, row in enumerate(rows_of(path)):
        if missing := [column for column in columns if column not in row]:
            raise InputError(f"--text {path}: no column {missing[0]!r}; it has {', '.join(row)}")
        prompt, response = (columns[0], columns[-1]) if len(columns) > 1 else ("", columns[0])
        request = row[prompt] if prompt else f"Write a {response}."
        if row[response].strip():
            yield Example(f"{path.name}:{number}", ({"role": "user", "content": request},), response=row[response])


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV file with titles, or objects of a JSON Lines file."""
    with path.open(encoding="utf-8", newline="") as lines:
        if path.suffix == ".csv":
            yield from csv.DictReader(lines)
        else:
            yield from (json.loads(line) for line in lines)
