"""MTS-Dialog (Ben Abacha et al., EACL 2023): a short dialogue becomes the header of a note's section and its text."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.errors import InputError
from cache.examples.example import Example
from student.tasks.table_rows import read_rows, require_fields
from student.tasks.text_scores import normalise, rouge

# The 20 headers of the set, as its files spell them.
HEADERS = (
    "FAM/SOCHX",
    "GENHX",
    "PASTMEDICALHX",
    "CC",
    "PASTSURGICAL",
    "ALLERGY",
    "ROS",
    "MEDICATIONS",
    "ASSESSMENT",
    "EXAM",
    "DIAGNOSIS",
    "DISPOSITION",
    "PLAN",
    "EDCOURSE",
    "IMMUNIZATIONS",
    "IMAGING",
    "GYNHX",
    "PROCEDURES",
    "OTHER_HISTORY",
    "LABS",
)
# The published files by the name of the split. Both test sets are official; publications use one of them.
FILES = {
    "train": "MTS-Dialog-TrainingSet.csv",
    "validation": "MTS-Dialog-ValidationSet.csv",
    "heldout": "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv",
    "heldout_2": "MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv",
}
COLUMNS = ("ID", "section_header", "section_text", "dialogue")
INSTRUCTION = "Name the section of the medical note to which this dialogue belongs, and write the section."


def read_sections(folder: Path) -> tuple[dict[str, list[Example]], dict[str, object]]:
    """The four published splits, and their statistics.

    Training rows whose dialogue is also in another file, in the same words, are left out and counted. Raises
    InputError with file and line for a header that the set does not have, and for an ID that a file has twice.
    """
    splits: dict[str, list[Example]] = {}
    for split, name in FILES.items():
        lines: dict[str, str] = {}
        splits[split] = []
        for where, row in read_rows(folder / name, COLUMNS):
            require_fields(where, row, COLUMNS)
            if row["section_header"] not in HEADERS:
                raise InputError(f"{where}: unknown header {row['section_header']!r}; known: {', '.join(HEADERS)}")
            if row["ID"] in lines:
                raise InputError(f"{where}: the ID {row['ID']!r} is also at {lines[row['ID']]}; remove one of them")
            lines[row["ID"]] = where
            splits[split].append(_example(split, row))
    # The set has such dialogues with another comma or line break.
    others = {_words(example) for split in FILES if split != "train" for example in splits[split]}
    kept = [example for example in splits["train"] if _words(example) not in others]
    facts: dict[str, object] = {
        "headers": {split: dict(Counter(e.metadata["header"] for e in rows)) for split, rows in splits.items()},
        "left_out_of_train": {"the dialogue is also in another file": len(splits["train"]) - len(kept)},
    }
    return {**splits, "train": kept}, facts


def _words(example: Example) -> str:
    return normalise(str(example.metadata["conversation"]))


def _example(split: str, row: dict[str, str]) -> Example:
    dialogue = "\n".join(line.strip() for line in row["dialogue"].splitlines() if line.strip())
    return Example(
        id=f"mts-{split}-{row['ID']}",
        messages=({"role": "user", "content": f"{INSTRUCTION}\n\n{dialogue}"},),
        response=f"{row['section_header']}\n{row['section_text']}",
        label=row["section_header"],
        metadata={
            "kind": "section",
            "header": row["section_header"],
            "section_text": row["section_text"],
            "conversation": dialogue,
        },
    )


def parse_section(text: str) -> tuple[str | None, str]:
    """The header of an answer, None if its first word is none of the set, and the text after it.

    Marks of Markdown around the header are passed over.
    """
    first, _, rest = text.strip().partition("\n")
    word = re.match(r"[#*_`\s]*([A-Za-z/]+(?:_[A-Za-z/]+)*)", first)
    header = word[1].upper() if word else ""
    if word is None or header not in HEADERS:
        return None, text.strip()
    return header, f"{first[word.end() :].lstrip(' :*_`')}\n{rest}".strip()


def score_section(text: str, header: str, section_text: str) -> dict[str, float]:
    """Indices of the true and the given header (-1: none of the set), and ROUGE of the section's text without it."""
    given, written = parse_section(text)
    return {
        "true_header": float(HEADERS.index(header)),
        "given_header": float(HEADERS.index(given)) if given else -1.0,
        **rouge(written, section_text, stemmed=False),  # as MEDIQA-Chat 2023 computes it
    }


def section_metrics(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Accuracy and macro F1 of the header, the share of answers that begin with one, and the means of ROUGE.

    Macro F1 is over the headers that are true for an example or were given for one.
    """
    from sklearn.metrics import accuracy_score, f1_score

    true, given = ([int(score[name]) for score in scores] for name in ("true_header", "given_header"))
    labels = sorted({*true, *given} - {-1})
    return {
        "header_accuracy": float(accuracy_score(true, given)),
        "header_macro_f1": float(f1_score(true, given, labels=labels, average="macro", zero_division=0)),
        "header_rate": sum(index >= 0 for index in given) / len(given),
        **{name: sum(score[name] for score in scores) / len(scores) for name in ("rouge1", "rouge2", "rougeL")},
    }
