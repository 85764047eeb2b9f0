"""The verbs that show what there is and how far it is, from files alone: status, list."""

import argparse
from dataclasses import asdict
from pathlib import Path

from cluster.commands.verbs import Result, Verbs, complete_folders


def add_state_verbs(verbs: Verbs) -> None:
    status = verbs.add(
        "status",
        _status,
        "show how far a capture, a training run or another job is",
        "logitbank status runs/demo/store",
    )
    complete_folders(status.add_argument("output", help="store (folder or address), or output folder of a job"))
    listing = verbs.add("list", _list, "list the stores and outputs of jobs below a folder", "logitbank list runs")
    complete_folders(
        listing.add_argument("folder", type=Path, nargs="?", default=Path(), help="where to look (default: the root)")
    )


def _status(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri
    from cluster.report.run_state import state_of

    state = state_of(absolute_uri(arguments.output, arguments.root))
    return Result(str(state), asdict(state))


def _list(arguments: argparse.Namespace) -> Result:
    from cluster.report.run_state import format_bytes, states_below

    folder = arguments.root / arguments.folder
    states = list(states_below(folder))
    names = [str(Path(state.path).relative_to(folder)) for state in states]
    width = max(map(len, names), default=0)
    lines = [
        f"{state.kind:<10}  {name:<{width}}  {format_bytes(state.size):>10}  {state.state}"
        for name, state in zip(names, states, strict=True)
    ]
    text = "\n".join(lines) or f"list: no store and no output of a job below {folder}"
    return Result(text, {"folder": folder, "runs": [asdict(state) for state in states]})
