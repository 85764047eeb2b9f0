"""Conversations that a teacher wrote: read from a store or a file, validated, and counted by reason."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import read_examples
from cache.json_documents import digest
from student.tasks.medical_conversation.conversation import (
    NO_TURN,
    Limits,
    Turn,
    count_exchanges,
    find_problem,
    opening_turn,
    parse_turns,
    statistics,
    write_turns,
)
from student.tasks.medical_conversation.prompts import record_example
from student.tasks.medical_conversation.record import PatientRecord, parse_record

UNFINISHED = "cut at the limit of tokens"


def valid_conversations(source: str, instruction: str, limits: Limits) -> tuple[list[Example], dict[str, Any]]:
    """Prompts to extract a record from each valid conversation, and what was left out by reason, with statistics.

    source: a store whose responses are conversations, or a JSON Lines file of examples whose response is one. In a file
    of the form {instruction, input, output} the input is the conversation, and the output the true record, if it is
    not empty: in JSON, as text or as an object. A conversation whose output is no record of the schema is left out.
    Raises InputError, with file and line, for a line that is no example.
    """
    reasons: Counter[str] = Counter()
    kept: list[Example] = []
    conversations: list[list[Turn]] = []
    seen: set[str] = set()
    total = 0
    for text, facts, record, problem, is_given in _conversations(source):
        total += 1
        turns = parse_turns(text)
        if is_given:
            opening = opening_turn(text, turns)
            turns = [*([opening] if opening else []), *turns]
            reason = problem or ("" if turns else NO_TURN)
        else:
            exchanges = facts.get("exchanges")
            requested = exchanges if isinstance(exchanges, int) else None
            reason = problem or find_problem(turns, limits, str(facts.get("topic", "")), requested)
        identity = digest([turn.text.lower() for turn in turns])
        if reason or identity in seen:
            reasons[reason or "the same as an earlier one"] += 1
            continue
        seen.add(identity)
        conversations.append(turns)
        metadata = {key: facts[key] for key in ("topic", "mood", "exchanges") if key in facts}
        if record:
            metadata["record"] = json.loads(record)
        kept.append(
            record_example(
                write_turns(turns), instruction, {**metadata, "found_exchanges": count_exchanges(turns)}, record
            )
        )
    facts_of_all: dict[str, Any] = {
        "conversations_read": total,
        "left_out": dict(reasons.most_common()),
        **statistics(conversations, [example.metadata for example in kept]),
    }
    return kept, facts_of_all


def _conversations(source: str) -> Iterator[tuple[str, Mapping[str, Any], str, str, bool]]:
    """Text, metadata, true record ("" if unknown) and known problem of each conversation; whether it is given."""
    if "://" not in source and Path(source).is_file():
        yield from _of_file(Path(source))
        return
    if "://" not in source and not Path(source).exists():
        raise InputError(f"task.conversations {source}: there is no such file or folder; correct the path")
    from cache.store.logit_store import LogitStore

    store = LogitStore.open(source)
    for example in store.texts(slice(None)):
        problem = "" if example.metadata.get("finished", True) else UNFINISHED
        yield example.response, example.metadata, "", problem, False


def _of_file(path: Path) -> Iterator[tuple[str, Mapping[str, Any], str, str, bool]]:
    for example in read_examples(path):
        conversation = example.metadata.get("input")
        if isinstance(conversation, str) and conversation:
            record, problem = _true_record(example.response)
            yield conversation, example.metadata, record, problem, True
        elif example.response:
            yield example.response, example.metadata, "", "", False
        else:
            raise InputError(
                f"{path}: example {example.id} has no conversation; give lines with 'response', or with 'instruction', "
                "'input' and 'output'"
            )


def _true_record(output: str) -> tuple[str, str]:
    """The record of a line as one line of JSON, "" if there is none; and why the output is no record, "" if it is."""
    if not output.strip():
        return "", ""
    parsed = parse_record(output)
    if not parsed.conforms:
        return "", f"its output is no record of the schema: {parsed.problem}"
    return PatientRecord.model_validate(parsed.value).to_json(), ""
