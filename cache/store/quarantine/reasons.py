"""Count the entries of a quarantine by reason. Reasons that differ only in numbers and names are counted together."""

import re
from collections import Counter
from collections.abc import Iterable

_LINE = re.compile(r"^line \d+: ")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|‘[^’]*’|“[^”]*”")
_NUMBER = re.compile(r"(?<![-\w.(])\d[\d,.]*(?<![,.])")


def general_reason(reason: str) -> str:
    """The reason without what differs between examples: the number of the line, quoted text, and numbers."""
    text = _QUOTED.sub("'...'", _LINE.sub("", reason))
    return _NUMBER.sub("N", text)


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Number of entries of each general reason, the most frequent first."""
    counts = Counter(map(general_reason, reasons))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
