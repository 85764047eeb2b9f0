"""Many commits of which only documents exist: what is known of units and examples does not need their parts."""

from dataclasses import replace

import numpy as np

from cache.storage.local import LocalStorage
from cache.store.commits import (
    Commit,
    CommittedExample,
    create_store,
    part_path,
    publish_commit,
    read_commit,
    unit_name,
)
from cache.store.unit_writer import write_unit
from tests.cache.rows.rows import TARGETS, store_spec
from tests.cache.store.damage import units_of

SPEC = store_spec(TARGETS["topk"])


def begin_store(storage: LocalStorage) -> Commit:
    """A new store with one real unit. Returns its commit."""
    create_store(storage, SPEC)
    return write_unit(storage, SPEC, units_of("topk", 1)[0])[0]


def add_commits(storage: LocalStorage, like: Commit, count: int, examples: int, seed: int) -> list[str]:
    """Commit units of random keys. Returns their names."""
    rng = np.random.default_rng(seed)
    return [commit_keys(storage, like, [rng.bytes(16).hex() for _ in range(examples)], rng) for _ in range(count)]


def commit_keys(storage: LocalStorage, like: Commit, keys: list[str], rng: np.random.Generator) -> str:
    """Commit a unit of examples with these keys. Returns its name."""
    unit = unit_name(keys)
    facts = tuple(CommittedExample(key, f"generated/{i % 3}", i + 1, i) for i, key in enumerate(keys))
    part = replace(like.part, path=part_path(unit, rng.bytes(16).hex()))
    publish_commit(storage, replace(like, unit=unit, part=part, examples=facts))
    return unit


def keys_of(storage: LocalStorage, unit: str) -> list[str]:
    return [example.key for example in read_commit(storage, unit)[0].examples]
