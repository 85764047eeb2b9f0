"""The verbs that take examples and snapshots out of a store: forget, expire."""

import argparse
from datetime import datetime
from pathlib import Path

from cache.errors import InputError
from cluster.commands.store_verbs import STORE_HELP
from cluster.commands.verbs import Result, Verbs, complete_files, complete_folders


def add_removal_verbs(verbs: Verbs) -> None:
    store = "runs/demo/store"
    forget = verbs.add(
        "forget", _forget, "mark examples that a store must not keep", f"logitbank forget {store} patient-17"
    )
    complete_folders(forget.add_argument("store", help=STORE_HELP))
    forget.add_argument(
        "names", nargs="*", metavar="KEY_OR_ID", help="id of an example, which may have several responses, or whole key"
    )
    complete_files(
        forget.add_argument(
            "--from", dest="file", type=Path, metavar="FILE", help="read ids and keys, one on each line"
        )
    )
    forget.add_argument(
        "--reason", default="", metavar="TEXT", help="why, for the record; write no text of the example"
    )
    expire = verbs.add("expire", _expire, "remove old snapshots", f"logitbank expire {store} --keep 1")
    complete_folders(expire.add_argument("store", help=STORE_HELP))
    which = expire.add_mutually_exclusive_group(required=True)
    which.add_argument("--keep", type=int, metavar="N", help="keep the newest N snapshots, at least 1")
    which.add_argument("--before", metavar="DATE", help="remove those taken before a date or time, such as 2026-11-30")


def _forget(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri
    from cache.store.upkeep.forgetting import forget_examples, read_names

    names = [*arguments.names, *(read_names(arguments.root / arguments.file) if arguments.file else [])]
    if not names:
        raise InputError("name at least one id or key, or give a file of them with --from FILE")
    uri = absolute_uri(arguments.store, arguments.root)
    report = forget_examples(uri, names, arguments.reason)
    lines = [
        *(f"forgotten: {key}" for key in report.keys),
        *(f"forgotten before: {key}" for key in report.known),
        *(f"not in the store now, a capture will leave it out: {key}" for key in report.absent),
        f"forget: {len(report.keys):,} marked; the next snapshot leaves them out. To remove their files, run",
        *(f"  logitbank {verb}" for verb in (f"snapshot {uri}", f"expire {uri} --keep 1", f"gc {uri}")),
    ]
    return Result("\n".join(lines), {"keys": report.keys, "known": report.known, "absent": report.absent})


def _expire(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri, open_storage
    from cache.store.snapshot_reading import snapshot_numbers
    from cache.store.upkeep.expiring import expire_snapshots

    storage = open_storage(absolute_uri(arguments.store, arguments.root))
    expired = expire_snapshots(storage, arguments.keep, _time(arguments.before))
    left = snapshot_numbers(storage)
    lines = [f"expired: snapshot {number}" for number in expired]
    text = f"expire: {len(expired):,} snapshots removed, {len(left):,} kept; 'logitbank gc' removes what only they used"
    return Result("\n".join([*lines, text]), {"expired": expired, "kept": left})


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"--before {text}: give a date such as 2026-11-30, or a time such as 2026-11-30T12:00"
        ) from None
