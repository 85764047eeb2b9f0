"""Keep what the demo of a task measured: the results of its report, with command, date and hardware.

    make demo-drug && python -m benchmarks.tasks drug --save
    make demo-science DATA=/data/beetle && python -m benchmarks.tasks science --file science_beetle --save

Each figure is a mean over seeds with its range, beside its baseline. The pages docs/tasks/*.md show the files.
"""

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.common.harness import RESULTS
from cache.errors import InputError
from cache.json_documents import write_json
from cluster.report.groups import table_columns
from cluster.report.metrics_table import metrics_table
from cluster.runtime.outputs import read_json

NAMES = ("drug", "medical", "science", "recipe", "step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES, help="of the demo")
    parser.add_argument("--folder", type=Path, help="output of the report (default: runs/NAME)")
    parser.add_argument("--file", help="name of the result file (default: NAME)")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/tasks/")
    options = parser.parse_args()
    folder = options.folder or Path("runs") / options.name
    path = folder / "results.json"
    results = read_json(path)
    if "tables" not in results:
        raise InputError(f"{path}: is no result of a report of this version; run the demo again")
    for title, columns in results["tables"].items():
        print(f"{title}\n{metrics_table(table_columns(columns))}\n".lstrip("\n"))
    kept = {"command": command(options.name, folder), "date": _date(path), **_kept(results)}
    if options.save:
        write_json(RESULTS / "tasks" / f"{options.file or options.name}.json", kept)
    print(json.dumps(kept))


def command(name: str, folder: Path) -> str:
    """The command of a demo, as its script noted it. Only the last part of a path is kept."""
    options = folder / "demo.options"
    text = options.read_text() if options.is_file() else ""
    given = {key: Path(value).name for key, value in re.findall(r"(teacher|data)=(\S+)", text)}
    environment = [f"{key.upper()}={value}" for key, value in re.findall(r"(tune|limit)=(\S+)", text)]
    path = folder / "demo.seeds"
    seeds = path.read_text().strip() if path.is_file() else "0"
    first = [] if seeds == "0" else [f'SEEDS="{seeds}"']
    return " ".join(
        [*first, *environment, f"make demo-{name}", *(f"{key.upper()}={value}" for key, value in sorted(given.items()))]
    )


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d")


def _kept(results: dict[str, Any]) -> dict[str, Any]:
    """Without the flat figures, which the tables have too."""
    flat = {
        f"{title}_{column}".lstrip("_") + f"_{name}"
        for title, columns in results["tables"].items()
        for column, metrics in columns.items()
        for name in metrics
    }
    return {name: value for name, value in results.items() if re.sub(r"_(min|max)$", "", name) not in flat}


if __name__ == "__main__":
    main()
