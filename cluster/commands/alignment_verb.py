"""The verb that moves a store to the tokens of a student: align."""

import argparse
import json
from typing import Any

from cache.errors import InputError
from cluster.commands.store_verbs import SNAPSHOT_HELP, STORE_HELP, tokenizer_name
from cluster.commands.verbs import Result, Verbs, complete_folders


def add_alignment_verb(verbs: Verbs) -> None:
    align = verbs.add(
        "align",
        _align,
        "write a store in the tokens of a student with another tokenizer",
        "logitbank align runs/demo/store runs/demo/aligned --tokenizer runs/teachers/SmolLM2-135M-Instruct",
    )
    complete_folders(align.add_argument("store", help=STORE_HELP))
    complete_folders(align.add_argument("output", help="store to write; the same command continues it"))
    align.add_argument("--tokenizer", required=True, help="folder or hub name of the student's tokenizer")
    align.add_argument(
        "--chat-template-kwargs",
        type=_variables,
        default={},
        metavar="JSON",
        help="variables of its chat template, such as '{\"enable_thinking\": false}'",
    )
    align.add_argument("--encoder", action="store_true", help="the student reads prompts with an encoder, such as T5")
    align.add_argument(
        "--profile", choices=("compact", "portable", "fast"), default="compact", help="(default: compact)"
    )
    align.add_argument("--snapshot", type=int, help=SNAPSHOT_HELP)
    align.add_argument(
        "--workers",
        type=int,
        help="units at a time, each on a core; more than 1 through Ray (default: the cores of this machine, or this "
        "process alone where that takes less than a minute)",
    )
    align.add_argument("--address", help="Ray head to join (default: RAY_ADDRESS, or an embedded Ray)")


def _align(arguments: argparse.Namespace) -> Result:
    from cache.examples.tokenizers import load_tokenizer
    from cache.rendering.prompt_form import PromptForm
    from cache.storage.open import absolute_uri
    from cache.store.logit_store import LogitStore
    from cluster.alignment.driver import run_alignment
    from cluster.runtime.progress_bars import counter

    if arguments.workers is not None and arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: give 1 or more")
    source, target = absolute_uri(arguments.store, arguments.root), absolute_uri(arguments.output, arguments.root)
    result = run_alignment(
        source,
        target,
        load_tokenizer(tokenizer_name(arguments) or "", what="--tokenizer"),
        PromptForm(arguments.chat_template_kwargs, "", arguments.encoder),
        arguments.snapshot,
        arguments.profile,
        arguments.workers,
        arguments.address,
        counter("align", "examples"),
    )
    size = LogitStore.open(target).info().bytes_per_token
    text = f"align: {result.examples:,} examples, {size:.1f} bytes/token in {arguments.output}"
    if result.aligned:
        text += f"; {result.shares}" + (f", of {result.aligned:,} of them" if result.aligned < result.examples else "")
    shares = {name: getattr(result.shares, name) for name in ("exact", "chained", "inside", "masked")}
    data = {"examples": result.examples, "aligned": result.aligned, "bytes_per_token": size, "output": target}
    return Result(text, {**data, "tokens": shares})


def _variables(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return values
