"""The verbs that look after one store: inspect, verify, snapshot, gc. None needs a teacher, a student or Ray."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cluster.commands.verbs import Result, Verbs, complete_files, complete_folders

# A writer needs at most this long from the first file of a unit to its commit, unless its machine sleeps.
MIN_GRACE_HOURS = 6.0
STORE_HELP = "folder, or address in an object store such as s3://bucket/prefix"
SNAPSHOT_HELP = "number of a snapshot (default: the newest)"


def add_store_verbs(verbs: Verbs) -> None:
    store = "runs/demo/store"
    inspect = verbs.add("inspect", _inspect, "show what a store contains", f"logitbank inspect {store}")
    verify = verbs.add("verify", _verify, "check every byte of a store", f"logitbank verify {store}")
    snapshot = verbs.add("snapshot", _snapshot, "take a snapshot of what is committed", f"logitbank snapshot {store}")
    gc = verbs.add("gc", _gc, "remove files that no commit uses", f"logitbank gc {store} --dry-run")
    for verb in (inspect, verify, snapshot, gc):
        complete_folders(verb.add_argument("store", help=STORE_HELP))
    verify.add_argument(
        "--repair",
        action="store_true",
        help="write lost indexes, snapshots and commits again; each follows from other files",
    )
    inspect.add_argument("--snapshot", type=int, help=SNAPSHOT_HELP)
    inspect.add_argument(
        "--example",
        metavar="KEY",
        help="show the tokens of one example and the teacher's top choices; KEY is its id, or the start of its key",
    )
    inspect.add_argument(
        "--tokenizer", help="folder or hub name of the tokenizer for --example (default: the teacher's)"
    )
    complete_files(inspect.add_argument("--page", type=Path, help="write an HTML page with charts to this file"))
    gc.add_argument(
        "--older-than",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="keep younger files, which a running capture may need (default: 24)",
    )
    gc.add_argument(
        "--force", action="store_true", help=f"allow --older-than below {MIN_GRACE_HOURS:g}; no capture may be running"
    )
    gc.add_argument("--dry-run", action="store_true", help="list what would be removed")


def store_facts(info: Any) -> dict[str, Any]:
    """The fields of a StoreInfo, and what follows from them, for --json."""
    return {**asdict(info), "fingerprint": info.spec.fingerprint, "bytes_per_token": info.bytes_per_token}


def _inspect(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri, open_storage
    from cache.store.logit_store import LogitStore
    from cache.store.snapshot_reading import latest_snapshot
    from cluster.capture.run_log import last_input
    from cluster.report.token_view import token_view

    if arguments.example == "":
        raise InputError("--example needs an id or the first digits of a key; 'logitbank inspect --help' shows more")
    if arguments.example is not None and arguments.json:
        raise InputError("--example does not go with --json; leave one of them out")
    if arguments.example is not None and arguments.page is not None:
        raise InputError("--example does not go with --page; leave one of them out")
    uri = absolute_uri(arguments.store, arguments.root)
    unpinned = arguments.snapshot is None and not latest_snapshot(open_storage(uri))
    store = LogitStore.open(uri, arguments.snapshot, unpinned=unpinned)
    if arguments.example:
        return Result(token_view(store, arguments.example, tokenizer_name=tokenizer_name(arguments)))
    info, lines = store.info(), last_input(uri)
    text = f"{info}\nlast capture   {lines}" if lines else str(info)
    page = None if arguments.page is None else arguments.root / arguments.page
    if page is not None:
        from cluster.report.store_page import write_store_page

        write_store_page(store, page)
        text = f"{text}\n{page}"
    return Result(text, {**store_facts(info), "last_input": asdict(lines) if lines else None, "page": page})


def tokenizer_name(arguments: argparse.Namespace) -> str | None:
    """A folder below the root as a path. Any other text is a hub name."""
    folder = arguments.root / arguments.tokenizer if arguments.tokenizer else None
    return str(folder) if folder and folder.is_dir() else arguments.tokenizer


def _verify(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri
    from cache.store.verify import verify_store
    from cluster.runtime.progress_bars import counter

    uri = absolute_uri(arguments.store, arguments.root)
    report = verify_store(uri, counter("verify", "units"), arguments.repair)
    verdict = f"{len(report.problems)} problems" if report.problems else "sound"
    verdict += f"; forgotten examples in {len(report.remaining)} files" if report.remaining else ""
    lines = [
        *(f"repaired: {name}" for name in report.repaired),
        *(f"damaged: {problem}" for problem in report.problems),
        *(f"uncommitted, not counted: {part}" for part in report.uncommitted),
        *(f"forgotten, still there: {name}; see 'logitbank gc --dry-run'" for name in report.remaining),
        *([f"doubles: {report.doubles:,} examples are in two units; the first counts"] if report.doubles else []),
        f"verify: {verdict}; {report.files:,} files, {report.bytes:,} bytes, {report.examples:,} examples",
    ]
    return Result("\n".join(lines), asdict(report), exit_code=1 if report.problems or report.remaining else 0)


def _snapshot(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri, open_storage
    from cache.store.snapshots import take_snapshot

    snapshot = take_snapshot(open_storage(absolute_uri(arguments.store, arguments.root)))
    data = {"number": snapshot.number, "units": snapshot.units, "digest": snapshot.digest}
    return Result(f"snapshot {snapshot.number}: {snapshot.units:,} units", data)


def _gc(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri, open_storage
    from cache.store.upkeep.garbage_collection import collect_garbage
    from cluster.capture.sharing.leftovers import remove_leftovers

    if not arguments.older_than >= 0:
        raise InputError(f"--older-than {arguments.older_than}: give hours, 0 or more")
    if arguments.older_than < MIN_GRACE_HOURS and not (arguments.force or arguments.dry_run):
        raise InputError(
            f"--older-than {arguments.older_than:g}: a running capture may still need files younger than "
            f"{MIN_GRACE_HOURS:g} hours; add --force if none is running"
        )
    storage = open_storage(absolute_uri(arguments.store, arguments.root))
    report = collect_garbage(storage, arguments.older_than * 3600, arguments.dry_run)
    leftovers = remove_leftovers(storage, arguments.dry_run)
    verb = "would remove" if arguments.dry_run else "removed"
    lines = [
        *(f"{verb} {name}" for name in report.removed),
        *(f"{verb} {name}, of a driver that is gone" for name in leftovers),
        *(f"kept, younger than {arguments.older_than:g} hours: {name}" for name in report.young),
        *(f"waiting: {line}" for line in report.waiting),
        *(f"withdrawn, its files were already removed: {name}; run the job again" for name in report.withdrawn),
        f"gc: {verb} {len(report.removed):,}, {report.bytes:,} bytes; kept {len(report.young):,}"
        + (f"; {len(report.waiting):,} wait" if report.waiting else ""),
    ]
    return Result("\n".join(lines), {**asdict(report), "leftovers": leftovers})
