"""Texts of a store as JSON Lines of {instruction, input, output}, the form of Alpaca's data.

The form has no place for distributions. `read_examples` reads it back (cache/examples/files/jsonl.py).
"""

import json
from pathlib import Path

from cache.examples.example import Example
from cache.exchange.conversion import new_output
from cache.progress import Progress, no_progress
from cache.store.reading.sequence import RecordSequence

BATCH = 256


def export_instruction(store: RecordSequence, path: str | Path, progress: Progress = no_progress) -> int:
    """Write a line for each example. Returns how many were left out, because the form cannot express them.

    instruction, input: as the example was read from this form. Otherwise the system turn and the user's turn; without a
        system turn the first paragraph of the user's turn, and the rest.
    output: rationale and response. progress: called with (examples done, examples).
    Left out are chats with several turns of the user, or with tools. Raises InputError if `path` is not empty.
    """
    numbers, left_out = store.numbers(), 0
    with new_output(Path(path)) as draft, draft.open("w", encoding="utf-8") as file:
        for start in range(0, len(numbers), BATCH):
            for example in store.texts(numbers[start : start + BATCH].tolist()):
                line = instruction_line(example)
                if line is None:
                    left_out += 1
                else:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            progress(min(start + BATCH, len(numbers)), len(numbers))
    return left_out


def instruction_line(example: Example) -> dict[str, str] | None:
    """The line of an example; None if the form cannot express it."""
    turns = list(example.messages)
    output = example.rationale + example.response
    if not output and turns and turns[-1]["role"] == "assistant":
        output = str(turns.pop().get("content") or "")
    roles = [turn["role"] for turn in turns]
    if roles not in (["user"], ["system", "user"]) or example.tools:
        return None
    contents = [str(turn.get("content") or "") for turn in turns]
    read = example.metadata.get("instruction"), example.metadata.get("input")
    if isinstance(read[0], str) and isinstance(read[1], str) and contents == ["\n\n".join(filter(None, read))]:
        instruction, given = read
    elif len(contents) == 2:
        instruction, given = contents
    else:
        instruction, _, given = contents[0].partition("\n\n")
    return {"instruction": str(instruction), "input": str(given), "output": output}
