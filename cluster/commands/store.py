"""The verbs of the command line that look after a store: no teacher, student or Ray is needed for any of them."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.storage.open import absolute_uri

FORMATS = ("parquet", "distillkit", "axolotl")
ADDRESS = "folder, or the address of an object store such as s3://bucket/prefix"


def add_store_verbs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """verb(name, run, summary, example) makes the parser of one."""
    store = "runs/demo/store"
    inspect = verb("inspect", _inspect, "show what a store holds", f"logitbank inspect {store}")
    verify = verb("verify", _verify, "check every byte of a store", f"logitbank verify {store}")
    snapshot = verb("snapshot", _snapshot, "pin what is committed", f"logitbank snapshot {store}")
    gc = verb("gc", _gc, "remove what nothing counts", f"logitbank gc {store} --dry-run")
    export = verb(
        "export", _export, "copy a store to another profile or format", f"logitbank export {store} rows.parquet"
    )
    fill = verb("import", _import, "make a store of another tool's files", "logitbank import parquet rows.parquet new")
    for each in (inspect, verify, snapshot, gc, export):
        each.add_argument("store", help=ADDRESS)
    for each in (inspect, verify, snapshot, gc):
        each.add_argument("--json", action="store_true", help="print JSON")
    inspect.add_argument("--snapshot", type=int, help="number of a snapshot (default: the newest)")
    inspect.add_argument("--example", metavar="KEY", help="show one example beside the teacher's choices")
    inspect.add_argument("--tokenizer", help="folder or hub name for --example (default: the teacher's)")
    gc.add_argument(
        "--older-than",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="spare what may be somebody's work (default: 24)",
    )
    gc.add_argument("--dry-run", action="store_true", help="tell what would be removed")
    export.add_argument("output", help="file, folder or address to write")
    export.add_argument("--profile", choices=("compact", "portable", "fast"), help="a store again, coded otherwise")
    export.add_argument("--format", choices=FORMATS, help="another tool's format (default: by the output's name)")
    export.add_argument("--snapshot", type=int, help="number of a snapshot (default: the newest)")
    export.add_argument("--sequence-length", type=int, help="distillkit: pad every example to this length")
    fill.add_argument("format", choices=FORMATS)
    fill.add_argument("input", type=Path, help="file or folder to read")
    fill.add_argument("store", help=ADDRESS)
    fill.add_argument("--teacher", default="imported", help="what to call the teacher (default: imported)")
    fill.add_argument("--vocab-size", type=int, help="axolotl: width of the teacher's logits")
    fill.add_argument("--unit-size", type=int, default=256, help="examples of a unit (default: 256)")


def _inspect(arguments: argparse.Namespace) -> None:
    from cache.storage.open import open_storage
    from cache.store.logit_store import LogitStore
    from cache.store.snapshots import latest_snapshot
    from cluster.report.tables import example_rows

    if arguments.example is not None and (arguments.json or not arguments.example):
        raise InputError("--example needs the first digits of a key, and does not go with --json")
    uri = absolute_uri(arguments.store, arguments.root)
    unpinned = arguments.snapshot is None and not latest_snapshot(open_storage(uri))
    store = LogitStore.open(uri, arguments.snapshot, unpinned=unpinned)
    info = store.info()
    if arguments.json:
        fields = {**asdict(info), "fingerprint": info.spec.fingerprint, "bytes_per_token": info.bytes_per_token}
        # What has no value, such as the bytes of a token where none has a target, is null: JSON knows no other word.
        print(json.dumps({name: None if value != value else value for name, value in fields.items()}))  # noqa: PLR0124
    elif arguments.example:
        print(example_rows(store, arguments.example, tokenizer_name=_tokenizer(arguments)))
    else:
        print(info)


def _tokenizer(arguments: argparse.Namespace) -> str | None:
    """A folder from the root, else a hub name."""
    folder = arguments.root / arguments.tokenizer if arguments.tokenizer else None
    return str(folder) if folder and folder.is_dir() else arguments.tokenizer


def _verify(arguments: argparse.Namespace) -> int:
    from cache.store.verify import verify
    from cluster.job.progress_bars import counter

    report = verify(absolute_uri(arguments.store, arguments.root), counter("verify", "units"))
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        for problem in report.problems:
            print(f"damaged: {problem}")
        for part in report.uncommitted:
            print(f"uncommitted, not counted: {part}")
        verdict = f"{len(report.problems)} problems" if report.problems else "sound"
        print(f"verify: {verdict}; {report.files:,} files, {report.bytes:,} bytes, {report.examples:,} examples")
    return 1 if report.problems else 0


def _snapshot(arguments: argparse.Namespace) -> None:
    from cache.storage.open import open_storage
    from cache.store.snapshots import take_snapshot

    snapshot = take_snapshot(open_storage(absolute_uri(arguments.store, arguments.root)))
    fields = {"number": snapshot.number, "units": snapshot.units, "digest": snapshot.digest}
    print(json.dumps(fields) if arguments.json else f"snapshot {snapshot.number}: {snapshot.units:,} units")


def _gc(arguments: argparse.Namespace) -> None:
    from cache.storage.open import open_storage
    from cache.store.garbage_collection import sweep

    if not arguments.older_than >= 0:
        raise InputError(f"--older-than {arguments.older_than}: give hours, 0 or more")
    storage = open_storage(absolute_uri(arguments.store, arguments.root))
    report = sweep(storage, arguments.older_than * 3600, arguments.dry_run)
    if arguments.json:
        print(json.dumps(asdict(report)))
        return
    done = "would remove" if arguments.dry_run else "removed"
    for name in report.removed:
        print(f"{done} {name}")
    for name in report.young:
        print(f"spared, younger than {arguments.older_than:g} hours: {name}")
    print(f"gc: {done} {len(report.removed):,}, {report.bytes:,} bytes; spared {len(report.young):,}")


def _export(arguments: argparse.Namespace) -> None:
    from cache.store.logit_store import LogitStore
    from cluster.job.progress_bars import counter

    source, output = absolute_uri(arguments.store, arguments.root), absolute_uri(arguments.output, arguments.root)
    if arguments.profile and (arguments.format or arguments.sequence_length is not None):
        raise InputError("--profile makes a store, --format and --sequence-length another tool's files; give one")
    if "://" not in source + output and Path(output).resolve().is_relative_to(Path(source).resolve()):
        raise InputError(f"export to {arguments.output!r}: lies inside the store itself; give a place outside")
    if arguments.profile:
        from cache.store.transcode import transcode

        transcode(source, output, arguments.profile, arguments.snapshot, progress=counter("export", "units"))
        info = LogitStore.open(output).info()
        print(f"export: {info.examples:,} examples, {info.bytes_per_token:.1f} bytes/token in {arguments.output}")
        return
    form = arguments.format or ("parquet" if output.endswith(".parquet") else None)
    if form is None:
        raise InputError(f"export to {arguments.output!r}: give --profile for a store, or --format {'|'.join(FORMATS)}")
    if arguments.sequence_length is not None and form != "distillkit":
        raise InputError("--sequence-length is for --format distillkit")
    if "://" in output:
        raise InputError(f"export to {arguments.output!r}: only a store goes to an address; give a local path")
    store = LogitStore.open(source, arguments.snapshot)
    progress = counter("export", "examples")
    left_out = 0
    if form == "parquet":
        from cache.exchange.parquet import export_parquet

        export_parquet(store, output, progress=progress)
    elif form == "distillkit":
        from cache.exchange.distillkit import export_distillkit

        left_out = export_distillkit(store, output, sequence_length=arguments.sequence_length, progress=progress)
    else:
        from cache.exchange.axolotl import export_axolotl

        export_axolotl(store, output, progress=progress)
    skipped = f"; {left_out:,} longer than {arguments.sequence_length} left out" if left_out else ""
    print(f"export: {len(store) - left_out:,} examples in {arguments.output}{skipped}")


def _import(arguments: argparse.Namespace) -> None:
    from cache.store.logit_store import LogitStore
    from cluster.job.progress_bars import counter

    target = absolute_uri(arguments.store, arguments.root)
    if ":/" in str(arguments.input):
        raise InputError(f"import from {str(arguments.input)!r}: copy it to a local path first")
    source = arguments.root / arguments.input
    common: dict[str, Any] = {"unit_examples": arguments.unit_size, "progress": counter("import", "examples")}
    if arguments.format == "parquet":
        from cache.exchange.parquet import import_parquet

        import_parquet(source, target, **common)
    elif arguments.format == "distillkit":
        from cache.exchange.distillkit import import_distillkit

        import_distillkit(source, target, teacher=arguments.teacher, **common)
    else:
        from cache.exchange.axolotl import import_axolotl

        if arguments.vocab_size is None:
            raise InputError(
                "import axolotl: give --vocab-size, the width of the teacher's logits; its files do not say"
            )
        import_axolotl(source, target, arguments.teacher, arguments.vocab_size, **common)
    print(LogitStore.open(target).info())
