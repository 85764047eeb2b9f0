"""The form in which the values of records are compared. Stricter than that of SQuAD, in which 2.5 mg equals 25 mg."""

import re
import string

from student.tasks.text_scores import ARTICLES

# A comma between thousands is no part of a number.
THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
# Punctuation that does not belong to a number, such as 2.5, .5, 120/80 or 10-20.
_MARKS = re.escape(string.punctuation.replace(".", ""))
PUNCTUATION = re.compile(rf"\.(?![0-9])|(?<=[^\W0-9])\.|(?<![0-9])[{_MARKS}]|[{_MARKS}](?![0-9])")
# An article stands before a word. The last word of "hepatitis A" and a capital letter inside are none.
ARTICLE = re.compile(r"\b(?:a|an|the)\b(?=\s+\w)|^\s*(?:A|An|The|AN|THE)\b(?=\s+\w)")


def normalise_value(value: str) -> str:
    """Lower case, without articles, repeated spaces and punctuation. Numbers keep their decimal point and strokes."""
    text = PUNCTUATION.sub("", THOUSANDS.sub("", value))
    return " ".join(ARTICLE.sub(" ", text).lower().split())


def words_of(conversation: str) -> frozenset[str]:
    """The words of a conversation as `normalise_value` writes them, articles too.

    Of a word with hyphens or strokes also the parts, as in 56-year-old.
    """
    parts = re.sub(r"[-/]", " ", conversation)
    written = [*normalise_value(conversation).split(), *normalise_value(parts).split()]
    return frozenset(written) | frozenset(ARTICLES.findall(conversation.lower()))
