"""What all verbs share: how their parsers are made, and how their results are printed."""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import shtab


@dataclass(frozen=True, slots=True)
class Result:
    """What a verb reports. text: for people. data: the same facts for --json."""

    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0

    def to_json(self) -> str:
        """One line of JSON. NaN becomes null, because JSON has no NaN."""
        return json.dumps(_without_nan(self.data), default=str)


VerbFunction = Callable[[argparse.Namespace], Result]


class Verbs:
    """The subcommands of the top parser."""

    def __init__(self, top: argparse.ArgumentParser) -> None:
        self._subparsers = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(
        self, name: str, run: VerbFunction, summary: str, example: str, has_json: bool = True
    ) -> argparse.ArgumentParser:
        """Add a verb. Its help ends with the example. has_json: it has the option --json."""
        verb = self._subparsers.add_parser(
            name, help=summary, description=summary[:1].upper() + summary[1:] + ".", epilog=f"example: {example}"
        )
        verb.set_defaults(run=run, json=False)
        if has_json:
            verb.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
        return verb


def complete_files(action: argparse.Action) -> argparse.Action:
    """Let the shell complete the argument with names of files."""
    action.complete = shtab.FILE  # type: ignore[attr-defined]
    return action


def complete_folders(action: argparse.Action) -> argparse.Action:
    """Let the shell complete the argument with names of folders."""
    action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return action


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
