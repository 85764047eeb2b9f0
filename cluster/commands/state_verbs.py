"""The verbs that show what there is and how far it is, from files alone: status, list."""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import InputError, StoreError
from cluster.commands.verbs import Result, Verbs, complete_folders

if TYPE_CHECKING:
    from cluster.report.run_state import RunState


def add_state_verbs(verbs: Verbs) -> None:
    status = verbs.add(
        "status",
        _status,
        "show how far a capture, a training run or another job is",
        "logitbank status runs/demo/store",
    )
    complete_folders(status.add_argument("output", help="store (folder or address), or output folder of a job"))
    status.add_argument(
        "--watch",
        nargs="?",
        type=_interval,
        const=5.0,
        metavar="SECONDS",
        help="show it again every so many seconds (5), until Ctrl-C",
    )
    listing = verbs.add("list", _list, "list the stores and outputs of jobs below a folder", "logitbank list runs")
    complete_folders(
        listing.add_argument("folder", type=Path, nargs="?", default=Path(), help="where to look (default: the root)")
    )


def _interval(text: str) -> float:
    """Seconds between two readings. Raises argparse.ArgumentTypeError if it is no positive number."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return seconds


def _status(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri
    from cluster.report.run_state import state_of

    path = absolute_uri(arguments.output, arguments.root)
    if arguments.watch is None:
        return _result(state_of(path))
    result = _first_result(path, arguments)
    # A terminal shows the state in one place; elsewhere, each reading stands below the last, or is a line of JSON.
    clear = "\x1b[H\x1b[J" if sys.stdout.isatty() and not arguments.json else ""
    output = sys.__stdout__ or sys.stdout  # with --json, standard output is kept for the result, and this is it
    try:
        while True:
            print(f"{clear}{result.to_json() if arguments.json else result.text}", flush=True, file=output)
            time.sleep(arguments.watch)
            result = _result(state_of(path))
    except (KeyboardInterrupt, BrokenPipeError):  # the user, or a reader such as head, has seen enough
        sys.exit(0)


def _first_result(path: str, arguments: argparse.Namespace) -> Result:
    """The state once there is one: a job that was just submitted has no store yet."""
    from cluster.report.run_state import state_of

    has_told = False
    while True:
        try:
            return _result(state_of(path))
        except (InputError, StoreError) as error:
            if not has_told:
                print(f"status: {error}; waiting for it", file=sys.stderr, flush=True)
            has_told = True
        try:
            time.sleep(arguments.watch)
        except KeyboardInterrupt:
            sys.exit(0)


def _result(state: "RunState") -> Result:
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
