"""Tables of the pages docs/tasks/*.md, from benchmarks/results/tasks/*.json.

A page names the file between two comments: `<!-- results NAME -->` and `<!-- results end -->`. What stands between them
is generated.
"""

import re
from pathlib import Path

from docs.generate.measurements.results import read

BLOCK = re.compile(r"(<!-- results (?P<name>\w+) -->\n)(.*?)(<!-- results end -->)", re.DOTALL)


def pages(root: Path) -> dict[str, str]:
    """The current text of every page, by its path below `root`."""
    paths = sorted((root / "docs" / "tasks").glob("*.md"))
    return {str(path.relative_to(root)): _filled(path.read_text()) for path in paths}


def _filled(text: str) -> str:
    return BLOCK.sub(lambda block: f"{block[1]}{tables(block['name'])}\n{block[4]}", text)


def tables(name: str) -> str:
    """The tables of one result file as Markdown, and where they come from."""
    from cluster.report.groups import table_columns
    from cluster.report.metrics_table import metrics_table

    result = read(f"tasks/{name}")
    texts = [
        f"{title or 'Held-out examples'}\n\n{metrics_table(table_columns(columns))}"
        for title, columns in result["tables"].items()
    ]
    seconds = f", {result['total_seconds']:,.0f} s in all" if result.get("total_seconds") else ""
    origin = f"`{result['command']}`, {result['date']}, {result['hardware']}{seconds} (`benchmarks/results/tasks/{name}.json`)"
    return "\n\n".join([*(f"```\n{text}\n```" for text in texts), origin])
