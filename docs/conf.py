"""Settings of Sphinx. `make docs` builds the pages into docs/_build; a warning is an error."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "logitbank"
author = "the authors of logitbank"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "generate"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"logitbank {release}"

# The public names import their modules at first use.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"


def plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Show a docstring line by line: docstrings here are plain text, not reStructuredText."""
    lines[:] = ["| " + re.sub(r"([\\\\*_|])", r"\\\1", line) if line.strip() else "|" for line in lines] + [""]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", plain_text)
