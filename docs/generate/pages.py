"""The generated files and the functions that generate them."""

from pathlib import Path

from docs.generate import api, commands, demo_table, grafana, job_files, sizing, task_tables
from docs.generate.measurements.page import page as measurements


def outdated(root: Path) -> dict[str, str]:
    """The new text of every generated file that differs from the file below `root`."""
    texts = {
        "docs/job-files.md": job_files.page(),
        "docs/api.md": api.page(),
        "docs/commands.md": commands.page(),
        "docs/measurements.md": measurements(),
        "README.md": demo_table.readme(root),
        "docs/deploy.md": grafana.page(root),
        "docs/sizing.md": sizing.page(root),
        "cluster/deploy/grafana.json": grafana.dashboard(),
        **task_tables.pages(root),
    }
    return {name: text for name, text in texts.items() if _text(root / name) != text}


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None
