"""ACI-bench (Yim et al., 2023): long visits, as input to extract a record from. There is no true record.

Only metrics that need no label can be computed: parse rate, conformance, share of "NOT PROVIDED", unsupported values.
"""

from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.examples.example import Example
from student.tasks.medical_conversation.conversation import (
    Turn,
    count_exchanges,
    opening_turn,
    parse_turns,
    write_turns,
)
from student.tasks.medical_conversation.prompts import record_example
from student.tasks.table_rows import read_rows, require_fields

FILES = {
    "train": "train.csv",
    "heldout": "clinicalnlp_taskC_test2.csv",
    "heldout_2": "clef_taskC_test3.csv",
}
COLUMNS = ("dataset", "encounter_id", "dialogue", "note")


def read_visits(
    folder: Path, instruction: str, max_words: int | None
) -> tuple[dict[str, list[Example]], dict[str, Any]]:
    """Prompts to extract a record from each visit, by split, and statistics.

    max_words: a longer visit ends after the last turn that fits; such visits are counted. Words before the first
    speaker are a turn of the one who does not come next. Raises InputError with file and line for a dialogue without
    turns, and for an encounter that a file has twice.
    """
    splits: dict[str, list[Example]] = {}
    turns_kept, exchanges, cut, opened = 0, 0, 0, 0
    for split, name in FILES.items():
        splits[split], lines = [], dict[str, str]()
        for where, row in read_rows(folder / name, COLUMNS):
            require_fields(where, row, COLUMNS)
            if row["encounter_id"] in lines:
                raise InputError(
                    f"{where}: the encounter {row['encounter_id']!r} is also at {lines[row['encounter_id']]}"
                )
            lines[row["encounter_id"]] = where
            turns = parse_turns(row["dialogue"])
            if not turns:
                raise InputError(f"{where}: no line of the dialogue begins with a speaker, such as [doctor]")
            if (opening := opening_turn(row["dialogue"], turns)) is not None:
                turns, opened = [opening, *turns], opened + 1
            kept = first_turns(turns, max_words)
            cut += len(kept) < len(turns)
            turns_kept, exchanges = turns_kept + len(kept), exchanges + count_exchanges(kept)
            metadata = {"source": row["dataset"], "encounter": row["encounter_id"]}
            name_of = f"aci-{split}-{row['encounter_id']}"
            splits[split].append(record_example(write_turns(kept), instruction, metadata, name=name_of))
    facts = {"turns": turns_kept, "exchanges": exchanges, "visits_cut_at_max_words": cut}
    return splits, {**facts, "visits_that_begin_without_a_speaker": opened}


def first_turns(turns: list[Turn], max_words: int | None) -> list[Turn]:
    """The first turns with at most `max_words` words together, and at least one."""
    if max_words is None:
        return turns
    kept, words = turns[:1], len(turns[0].text.split())
    for turn in turns[1:]:
        words += len(turn.text.split())
        if words > max_words:
            break
        kept.append(turn)
    return kept
