"""Conversations: turns of doctor and patient, their validation, and statistics over many of them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SPEAKERS = ("Doctor", "Patient")
# Who speaks. Other words before a colon, such as "Note: ...", begin no turn.
_ROLE = r"(?:doctor|patient|physician|nurse|guest|clinician)(?:_\w+)?"
_NAME = rf"{_ROLE}|(?:dr|mr|mrs|ms)\b\.?(?:\s+\w+(?-i:\s+[A-Z][\w'.-]*){{0,2}})?"
# A line that begins a turn: "Doctor: ...", "**Patient:** ...", "[doctor] ...", "Dr. Smith: ...", "Guest_family: ...",
# "1. Doctor: ...".
_TURN = re.compile(
    rf"^\W*?(?:\d+[.)]\s*)?\W*?(?:\[(?P<bracket>{_ROLE})\]|(?P<name>{_NAME})\s*(?:\([^)]*\))?\s*\W{{0,2}}:)\W{{0,2}}\s*",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
# A turn of so many words that occurs twice is the sign of a model that goes round in circles.
REPEATED_WORDS = 6
NO_TURN = "no turn that begins with Doctor: or Patient:"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn. speaker: "Doctor", "Patient", or another word in brackets, as in ACI-bench."""

    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a valid conversation is.

    exchanges: least and most pairs of a doctor's and a patient's turn. exact: the number that the prompt named instead.
    words: least and most words of the whole conversation.
    """

    exchanges: tuple[int, int]
    exact: bool
    words: tuple[int, int]


def parse_turns(text: str) -> list[Turn]:
    """The turns of a conversation. A line without a speaker continues the turn before it; words before are ignored."""
    turns: list[Turn] = []
    for line in text.splitlines():
        match = _TURN.match(line)
        if match:
            turns.append(Turn(_speaker(match), line[match.end() :].strip().strip("*").strip()))
        elif turns and line.strip():
            turns[-1] = Turn(turns[-1].speaker, f"{turns[-1].text} {line.strip()}".strip())
    return turns


def opening_turn(text: str, turns: Sequence[Turn]) -> Turn | None:
    """What is said before the first line with a speaker: a turn of the one who does not speak then; or None."""
    before = []
    for line in text.splitlines():
        if _TURN.match(line):
            break
        before.append(line.strip())
    words = " ".join(filter(None, before))
    if not turns or not _WORD.search(words):
        return None
    return Turn("Patient" if turns[0].speaker == "Doctor" else "Doctor", words)


def _speaker(match: re.Match[str]) -> str:
    """ "Doctor" or "Patient" by any of their names, "Doctor_2" and the like as they are; other people by their own."""
    word = (match["bracket"] or match["name"]).capitalize()
    if word.startswith(("Dr", "Physician", "Clinician")):
        return "Doctor"
    return "Patient" if re.match(r"(?:Mr|Mrs|Ms)\b", word) else word


def write_turns(turns: Sequence[Turn]) -> str:
    """One turn a line."""
    return "\n".join(f"{turn.speaker}: {turn.text}" for turn in turns)


def count_exchanges(turns: Sequence[Turn]) -> int:
    """Pairs of a turn of the doctor and the patient's turn right after it."""
    return sum(first.speaker == "Doctor" and second.speaker == "Patient" for first, second in pairwise(turns))


def find_problem(turns: Sequence[Turn], limits: Limits, topic: str = "", exchanges: int | None = None) -> str:
    """Why a conversation is not valid; "" if it is. topic: must be mentioned. exchanges: number that was requested."""
    text = " ".join(turn.text for turn in turns)
    found, words = count_exchanges(turns), len(_WORD.findall(text))
    if not turns:
        return NO_TURN
    if any(not _WORD.search(turn.text) for turn in turns):
        return "an empty turn"
    if any(first.speaker == second.speaker for first, second in pairwise(turns)):
        return "the speakers do not alternate"
    long = [turn.text.lower() for turn in turns if len(_WORD.findall(turn.text)) >= REPEATED_WORDS]
    if len(set(long)) < len(long):
        return "a turn is repeated"
    if limits.exact and exchanges is not None and found != exchanges:
        return "another number of exchanges than requested"
    if not limits.exchanges[0] <= found <= limits.exchanges[1]:
        return f"not {limits.exchanges[0]} to {limits.exchanges[1]} exchanges"
    if not limits.words[0] <= words <= limits.words[1]:
        return f"not {limits.words[0]} to {limits.words[1]} words"
    if topic and not mentions(text, topic):
        return "the topic is not mentioned"
    return ""


def mentions(text: str, topic: str) -> bool:
    """Whether a text has a word of the topic. Words of four letters and more count, in any form with the same start."""
    words = [word.lower() for word in _WORD.findall(topic)]
    stems = [word[: max(4, len(word) - 2)] for word in words if len(word) > 3] or words
    present = [word.lower() for word in _WORD.findall(text)]
    return any(word.startswith(stem) for stem in stems for word in present)


def statistics(conversations: Sequence[Sequence[Turn]], metadata: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics of valid conversations: counts by topic, mood and exchanges, lengths, and how different they are."""
    turns = [turn for conversation in conversations for turn in conversation]
    words = [word.lower() for turn in turns for word in _WORD.findall(turn.text)]
    pairs = list(pairwise(words))
    return {
        "conversations": len(conversations),
        "by_topic": dict(Counter(str(each.get("topic", "")) for each in metadata)),
        "by_mood": dict(Counter(str(each.get("mood", "")) for each in metadata)),
        "by_exchanges": {str(n): c for n, c in sorted(Counter(map(count_exchanges, conversations)).items())},
        "as_many_exchanges_as_requested": sum(
            count_exchanges(conversation) == each.get("exchanges")
            for conversation, each in zip(conversations, metadata, strict=True)
        ),
        "words_a_turn": round(len(words) / len(turns), 2) if turns else 0.0,
        "words_a_conversation": round(len(words) / len(conversations), 2) if conversations else 0.0,
        "distinct_words": len(set(words)),
        "distinct_pairs_of_words": round(len(set(pairs)) / len(pairs), 4) if pairs else 0.0,
        "distinct_first_turns": len({conversation[0].text.lower() for conversation in conversations if conversation}),
    }
