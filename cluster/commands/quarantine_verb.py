"""The verb that lists, explains and clears the quarantine of a store."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from cache.errors import InputError
from cluster.commands.store_verbs import STORE_HELP
from cluster.commands.verbs import Result, Verbs, complete_folders

if TYPE_CHECKING:
    from cache.storage.base import Storage
    from cache.store.quarantine.entries import QuarantineEntry

# Examples that are listed for each reason. --json lists all.
SHOWN_EXAMPLES = 10
OBSOLETE = "obsolete: its line was mended or removed, or it was captured later"


def add_quarantine_verb(verbs: Verbs) -> None:
    verb = verbs.add(
        "quarantine",
        _quarantine,
        "list the examples that could not be captured, with the reasons, or clear them",
        "logitbank quarantine runs/demo/store --retry",
    )
    complete_folders(verb.add_argument("store", help=STORE_HELP))
    verb.add_argument(
        "--example", metavar="KEY", help="only the examples with this id, or with a key that starts with this"
    )
    verb.add_argument("--reason", metavar="TEXT", help="only the examples whose reason contains this text")
    verb.add_argument(
        "--retry",
        action="store_true",
        help="remove the listed entries, so that the next capture asks for their examples again",
    )


def _quarantine(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri, open_storage
    from cache.store.logit_store import LogitStore
    from cache.store.quarantine.entries import read_entries
    from cache.store.segments.columns import hex_rows

    uri = absolute_uri(arguments.store, arguments.root)
    storage = open_storage(uri)
    stored = set(hex_rows(LogitStore.open(uri, unpinned=True).index.key))
    entries = _select(read_entries(storage, stored), arguments.example, arguments.reason)
    waiting = [entry for entry in entries if not entry.is_obsolete]
    obsolete = [entry for entry in entries if entry.is_obsolete]
    if arguments.example is not None:
        lines = [_explain(entry) for entry in entries]
    else:
        lines = [*_list(waiting), *([f"{len(obsolete):,}: {OBSOLETE}"] if obsolete else [])]
    lines.append(f"quarantine: {len(waiting):,} waiting, {len(obsolete):,} obsolete in {arguments.store}")
    if arguments.retry:
        _clear(storage, entries)
        lines.append(f"quarantine: cleared {len(entries):,}; the next capture asks for their examples again")
    data = {
        "waiting": len(waiting),
        "obsolete": len(obsolete),
        "cleared": len(entries) if arguments.retry else 0,
        "reasons": _counts(waiting),
        "entries": [asdict(entry) for entry in entries],
    }
    return Result("\n".join(lines), data)


def _select(entries: "Sequence[QuarantineEntry]", example: str | None, reason: str | None) -> "list[QuarantineEntry]":
    """The entries that the options name. Raises InputError if an option names none."""
    chosen = list(entries)
    if example is not None:
        chosen = [entry for entry in chosen if entry.id == example]
        if not chosen and example:
            chosen = [entry for entry in entries if entry.key.startswith(example.lower())]
        if not chosen:
            raise InputError(f"--example {example!r}: no example in quarantine has this id or such a key")
    if reason is not None:
        chosen = [entry for entry in chosen if reason.casefold() in entry.reason.casefold()]
        if not chosen:
            raise InputError(f"--reason {reason!r}: no example in quarantine has a reason with this text")
    return chosen


def _counts(entries: "Sequence[QuarantineEntry]") -> dict[str, int]:
    from cache.store.quarantine.reasons import count_reasons

    return count_reasons(entry.reason for entry in entries)


def _list(entries: "Sequence[QuarantineEntry]") -> list[str]:
    """The entries by reason, with their ids and times."""
    from cache.store.quarantine.reasons import general_reason

    lines = []
    for reason, count in _counts(entries).items():
        alike = sorted((entry for entry in entries if general_reason(entry.reason) == reason), key=lambda e: e.time)
        lines.append(f"{count:,}: {reason}")
        lines += [f"    {entry.time}  {entry.key[:12]}  {entry.id}" for entry in alike[:SHOWN_EXAMPLES]]
        if count > SHOWN_EXAMPLES:
            lines.append(f"    and {count - SHOWN_EXAMPLES:,} more")
    return lines


def _explain(entry: "QuarantineEntry") -> str:
    """All that is known of an entry."""
    state = OBSOLETE if entry.is_obsolete else "waiting"
    facts = {"key": entry.key, "id": entry.id, "reason": entry.reason, "since": entry.time, "state": state}
    return "\n".join(f"{name:<8} {value}" for name, value in facts.items())


def _clear(storage: "Storage", entries: "Sequence[QuarantineEntry]") -> None:
    """Remove entries. A new snapshot without them follows if the newest one lists any."""
    from cache.store.quarantine.entries import remove_entries
    from cache.store.snapshot_reading import latest_snapshot, open_snapshot
    from cache.store.snapshots import take_snapshot

    keys = {entry.key for entry in entries}
    number = latest_snapshot(storage)
    listed = open_snapshot(storage, number)[0].quarantine if number else {}  # before entries that it lists are gone
    remove_entries(storage, sorted(keys))
    if keys.intersection(listed):
        take_snapshot(storage)
