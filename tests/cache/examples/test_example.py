"""Examples are stored and read unchanged; documents written before a field existed are still read."""

import json
from collections.abc import Callable
from dataclasses import replace

from cache.examples.example import Example
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from tests.cache.examples.chats import AGENT


def test_empty_later_fields_leave_no_bytes() -> None:
    example = Example("1", ({"role": "user", "content": "hi"},))
    assert list(example.to_document()) == ["id", "messages", "rationale", "response", "metadata"]
    labelled = replace(example, label="4", tools=({"name": "add"},)).to_document()
    assert labelled["label"] == "4" and list(labelled["tools"]) == [{"name": "add"}]


def test_documents_come_back() -> None:
    for example in (AGENT, replace(AGENT, label="4", metadata={"n": 1}), Example("1", (), "r", "s")):
        assert Example.from_document(json.loads(json.dumps(example.to_document()))) == example


def test_a_store_keeps_turns_label_and_tools(
    storage: LocalStorage, spec: StoreSpec, make_records: Callable[..., list[Record]]
) -> None:
    agent = replace(AGENT, label="4")
    first, second = make_records(2)
    first = replace(first, tokenized=replace(first.tokenized, example=agent))
    write_unit(storage, spec, [first, second])
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    assert [store[i].tokenized.example for i in range(2)] == [agent, second.tokenized.example]
