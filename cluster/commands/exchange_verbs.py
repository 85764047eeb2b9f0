"""The verbs that move stores to and from other profiles and formats: export, import, publish."""

import argparse
from pathlib import Path
from typing import Any, Literal

from cache.errors import InputError
from cluster.commands.store_verbs import SNAPSHOT_HELP, STORE_HELP, store_facts, tokenizer_name
from cluster.commands.verbs import Result, Verbs, complete_files, complete_folders

FORMATS = ("parquet", "distillkit", "axolotl")
# Texts without distributions: files of this form are examples, so that no store can be made of them.
EXPORT_FORMATS = (*FORMATS, "instruction", "texts")


def add_exchange_verbs(verbs: Verbs) -> None:
    export = verbs.add(
        "export",
        _export,
        "copy a store to another profile or to the format of another tool",
        "logitbank export runs/demo/store rows.parquet",
    )
    complete_folders(export.add_argument("store", help=STORE_HELP))
    complete_files(export.add_argument("output", help="file, folder or address to write"))
    export.add_argument("--profile", choices=("compact", "portable", "fast"), help="write a store with this profile")
    export.add_argument(
        "--format",
        choices=EXPORT_FORMATS,
        help="format of another tool (default: by the name of the output); instruction: texts as JSON Lines of "
        "instruction, input and output; texts: an examples file",
    )
    export.add_argument("--snapshot", type=int, help=SNAPSHOT_HELP)
    export.add_argument("--sequence-length", type=int, help="distillkit: pad every example to this length")

    load = verbs.add(
        "import",
        _import,
        "make a store from the files of another tool",
        "logitbank import parquet rows.parquet new",
    )
    load.add_argument("format", choices=FORMATS)
    complete_files(load.add_argument("input", type=Path, help="file or folder to read"))
    complete_folders(load.add_argument("store", help=STORE_HELP))
    load.add_argument("--teacher", help="name of the teacher to store (default: imported)")
    load.add_argument(
        "--tokenizer",
        help="folder or hub name of the teacher's tokenizer, which is put into the store; training needs it",
    )
    load.add_argument("--vocab-size", type=int, help="axolotl: width of the teacher's logits")
    load.add_argument("--unit-size", type=int, default=256, help="examples in each unit (default: 256)")

    publish = verbs.add(
        "publish",
        _publish,
        "write a store or a student with its card, into a folder or to a hub",
        "logitbank publish runs/demo/store hf://datasets/me/molecules --license apache-2.0",
    )
    complete_folders(publish.add_argument("store", help=f"{STORE_HELP}; or the output of a training run"))
    target = "new folder; or, with HF_TOKEN, hf://datasets/OWNER/NAME for a store, hf://OWNER/NAME for a student"
    complete_folders(publish.add_argument("target", help=target))
    publish.add_argument("--format", choices=("store", "parquet"), help="of a store (default: store)")
    publish.add_argument("--license", help='identifier of a licence on hubs, such as "apache-2.0"')
    publish.add_argument("--title", help="of the card (default: the name of the target)")
    publish.add_argument("--private", action="store_true", help="make a new data set or model private")
    publish.add_argument("--snapshot", type=int, help=SNAPSHOT_HELP)


def _publish(arguments: argparse.Namespace) -> Result:
    from cache.exchange.publication import publish
    from cache.storage.open import absolute_uri
    from cache.store.logit_store import LogitStore
    from cluster.runtime.progress_bars import counter
    from cluster.training.student_publication import publish_student, student_of

    source, target = absolute_uri(arguments.store, arguments.root), absolute_uri(arguments.target, arguments.root)
    if (student := student_of(source)) is not None:
        for option in ("format", "snapshot"):
            if getattr(arguments, option) is not None:
                raise InputError(f"--{option} is for a store, and {arguments.store} has a student; leave it out")
        place = publish_student(student, target, arguments.title, arguments.license, arguments.private)
        return Result(f"publish: the student {student} in {place}", {"student": student, "card": place})
    form: Literal["store", "parquet"] = arguments.format or "store"
    store = LogitStore.open(source, arguments.snapshot)
    title = arguments.title or target.rstrip("/").rpartition("/")[2]
    progress = counter("publish", "files" if form == "store" else "examples")
    place = publish(store, target, form, title, arguments.license, arguments.private, progress)
    missing = "" if arguments.license else "; no --license was given, and the card says so"
    text = f"publish: {len(store):,} examples, snapshot {store.snapshot}, in {place}{missing}"
    return Result(text, {"examples": len(store), "snapshot": store.snapshot, "card": place})


def _export(arguments: argparse.Namespace) -> Result:
    from cache.storage.open import absolute_uri

    source, output = absolute_uri(arguments.store, arguments.root), absolute_uri(arguments.output, arguments.root)
    if arguments.profile and (arguments.format or arguments.sequence_length is not None):
        raise InputError("--profile makes a store, --format and --sequence-length another tool's files; give one")
    if "://" not in source + output and Path(output).resolve().is_relative_to(Path(source).resolve()):
        raise InputError(f"export to {arguments.output!r}: lies inside the store itself; give a path outside the store")
    if arguments.profile:
        return _export_profile(arguments, source, output)
    return _export_format(arguments, source, output)


def _export_profile(arguments: argparse.Namespace, source: str, output: str) -> Result:
    """Write the same store with another profile."""
    from cache.store.copying.transcode import transcode_store
    from cache.store.logit_store import LogitStore
    from cluster.runtime.progress_bars import counter

    transcode_store(source, output, arguments.profile, arguments.snapshot, progress=counter("export", "units"))
    info = LogitStore.open(output).info()
    text = f"export: {info.examples:,} examples, {info.bytes_per_token:.1f} bytes/token in {arguments.output}"
    data = {"bytes_per_token": info.bytes_per_token, "profile": arguments.profile}
    return Result(text, {"examples": info.examples, "left_out": 0, "output": output, **data})


def _export_format(arguments: argparse.Namespace, source: str, output: str) -> Result:
    """Write the files of another tool."""
    from cache.store.logit_store import LogitStore
    from cluster.runtime.progress_bars import counter

    name = _format_of(arguments, output)
    store = LogitStore.open(source, arguments.snapshot)
    progress = counter("export", "examples")
    left_out = 0
    if name == "parquet":
        from cache.exchange.parquet import export_parquet

        export_parquet(store, output, progress=progress)
    elif name == "distillkit":
        from cache.exchange.distillkit import export_distillkit

        left_out = export_distillkit(store, output, sequence_length=arguments.sequence_length, progress=progress)
    elif name == "texts":
        from cache.exchange.texts import export_texts

        export_texts(store, output, progress=progress)
    elif name == "instruction":
        from cache.exchange.instruction import export_instruction

        left_out = export_instruction(store, output, progress=progress)
    else:
        from cache.exchange.axolotl import export_axolotl

        export_axolotl(store, output, progress=progress)
    reason = "with several turns or tools" if name == "instruction" else f"longer than {arguments.sequence_length}"
    skipped = f"; {left_out:,} {reason} left out" if left_out else ""
    examples = len(store) - left_out
    data = {"examples": examples, "left_out": left_out, "output": output, "format": name}
    return Result(f"export: {examples:,} examples in {arguments.output}{skipped}", data)


def _format_of(arguments: argparse.Namespace, output: str) -> str:
    """The format to export. Raises InputError for options that do not fit it."""
    name: str | None = arguments.format or ("parquet" if output.endswith(".parquet") else None)
    if name is None:
        raise InputError(
            f"export to {arguments.output!r}: give --profile for a store, or --format {'|'.join(EXPORT_FORMATS)}"
        )
    if arguments.sequence_length is not None and name != "distillkit":
        raise InputError("--sequence-length is for --format distillkit")
    if "://" in output:
        raise InputError(
            f"export to {arguments.output!r}: only a store can be written to an address; give a local path"
        )
    return name


def _import(arguments: argparse.Namespace) -> Result:
    from cache.examples.tokenizers import load_tokenizer, tokenizer_digest, tokenizer_files
    from cache.exchange.conversion import ImportedTeacher
    from cache.storage.open import absolute_uri, open_storage
    from cache.store.claims.tokenizer_files import UNKNOWN_TOKENIZER, UNNAMED_TEACHER, claim_tokenizer
    from cache.store.logit_store import LogitStore
    from cluster.runtime.progress_bars import counter

    target = absolute_uri(arguments.store, arguments.root)
    if ":/" in str(arguments.input):
        raise InputError(f"import from {str(arguments.input)!r}: copy it to a local path first")
    source = arguments.root / arguments.input
    _require_import_options(arguments)
    named = tokenizer_name(arguments)
    tokenizer = load_tokenizer(named, what="--tokenizer") if named else None
    digest = tokenizer_digest(tokenizer) if tokenizer else UNKNOWN_TOKENIZER
    name = arguments.teacher or UNNAMED_TEACHER
    common: dict[str, Any] = {"unit_examples": arguments.unit_size, "progress": counter("import", "examples")}
    if arguments.format == "parquet":
        from cache.exchange.parquet import import_parquet

        left_out = import_parquet(source, target, **common)
    elif arguments.format == "distillkit":
        from cache.exchange.distillkit import import_distillkit

        left_out = import_distillkit(source, target, ImportedTeacher(name, tokenizer=digest), **common)
    else:
        from cache.exchange.axolotl import import_axolotl

        left_out = import_axolotl(
            source, target, ImportedTeacher(name, tokenizer=digest), arguments.vocab_size, **common
        )
    store = LogitStore.open(target)
    if tokenizer:
        claim_tokenizer(open_storage(target), store.spec, tokenizer_files(tokenizer))
    info = store.info()
    lines = [str(info)]
    if left_out:
        lines.append(f"{'left out':<14} {left_out:,} examples of the file, each the same as an earlier one")
    return Result("\n".join(lines), {**store_facts(info), "left_out": left_out})


def _require_import_options(arguments: argparse.Namespace) -> None:
    """Raise InputError for options that do not fit the format, and for one that is missing."""
    if arguments.format == "parquet" and (arguments.teacher is not None or arguments.tokenizer is not None):
        raise InputError(
            "--teacher and --tokenizer are for distillkit and axolotl; a Parquet file contains the spec with both"
        )
    if arguments.format != "axolotl" and arguments.vocab_size is not None:
        raise InputError(f"--vocab-size is for axolotl; files of {arguments.format} contain it")
    if arguments.format == "axolotl" and arguments.vocab_size is None:
        raise InputError("import axolotl: give --vocab-size, the width of the teacher's logits; its files lack it")
