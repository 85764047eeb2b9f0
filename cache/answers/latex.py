"""LaTeX in labels: spacing and signs, commands with one argument, and fractions in plain characters."""

import re

SPACING = re.compile(r"\\(?:[,;:! ]|quad\b|qquad\b|left\b|right\b)|\{,\}(?=\d)")
SIGN = re.compile(r"\\([%$&#_])")
ARGUMENT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed|fbox)\s*\{([^{}]*)\}")
THOUSANDS = re.compile(r"(?<=\d)\\,(?=\d{3}(?!\d))")
SHORT_FRACTION = re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)")
FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
NAMES = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"^{\circ}": "", r"^\circ": "", r"\degree": ""}
MATH = re.compile(r"^\s*(?:\$(?=.*\$\s*$)|\\\(|\\\[)\s*(.*?)\s*(?:\$|\\\)|\\\])\s*$", re.DOTALL)


def without_latex(label: str) -> str:
    """Return a label with LaTeX's signs, fractions and text commands in plain characters."""
    if "\\" not in label and "$" not in label and "{,}" not in label:
        return label
    text = MATH.sub(r"\1", label)
    text = THOUSANDS.sub("", text.replace("\\(", "").replace("\\)", ""))
    text = SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = SIGN.sub(r"\1", SPACING.sub(" ", text.replace("{,}", ",")))
    for name, plain in NAMES.items():
        text = text.replace(name, plain)
    for _ in range(4):  # commands inside commands
        text = ARGUMENT.sub(r"\1", FRACTION.sub(_plain_fraction, text))
    return text


def _plain_fraction(fraction: re.Match[str]) -> str:
    """Return a fraction in plain characters. Behind a digit it is the fraction of a mixed number."""
    is_mixed = fraction.start() and fraction.string[fraction.start() - 1].isdigit()
    return f"{' ' if is_mixed else ''}{fraction[1]}/{fraction[2]}"
