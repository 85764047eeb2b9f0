"""The verbs that hold rows against others: compare two stores, and probe the engine of a capture job."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cache.errors import InputError
from cluster.commands.job_verbs import add_job, job_path, load_job_of
from cluster.commands.store_verbs import STORE_HELP
from cluster.commands.verbs import Result, Verbs, complete_folders

if TYPE_CHECKING:  # numpy is heavy
    from cache.comparison.store_comparison import Spread, StoreComparison

EXAMPLES = 200


def add_comparison_verbs(verbs: Verbs) -> None:
    compare = verbs.add(
        "compare",
        _compare,
        "show how far the rows of two stores are from one another",
        "logitbank compare runs/demo/store runs/demo/other",
    )
    complete_folders(compare.add_argument("store", help=STORE_HELP))
    complete_folders(
        compare.add_argument("other", help="store of the same examples and tokenizer, such as of another engine")
    )
    probe = verbs.add(
        "probe",
        _probe,
        "hold the rows of a job's engine against those of Transformers in float32",
        "logitbank probe cluster/jobs/demo/capture.toml --examples 50",
    )
    add_job(probe)
    probe.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the reference alone, such as teacher.dtype=bfloat16, or teacher.model=FOLDER of weights "
        "that are not quantised",
    )
    probe.add_argument("--address", help="Ray head to join (default: RAY_ADDRESS, or an embedded Ray)")
    for verb in (compare, probe):
        verb.add_argument("--examples", type=int, metavar="N", help=f"the first N examples (default: {EXAMPLES})")
        verb.add_argument(
            "--max-kl", type=float, metavar="NATS", help="exit with 1 if the mean divergence of a token is above this"
        )


def _compare(arguments: argparse.Namespace) -> Result:
    from cache.comparison.store_comparison import compare_stores
    from cache.storage.open import absolute_uri
    from cache.store.logit_store import LogitStore
    from cluster.runtime.progress_bars import counter

    uris = [absolute_uri(each, arguments.root) for each in (arguments.store, arguments.other)]
    with LogitStore.open(uris[0]) as reference, LogitStore.open(uris[1]) as other:
        found = compare_stores(reference, other, _examples(arguments), counter("compare", "examples"))
    heads = [f"compare: rows of {arguments.other} beside those of {arguments.store}"]
    return _result(found, arguments.max_kl, heads, {})


def _probe(arguments: argparse.Namespace) -> Result:
    from cluster.capture.probe import reference_job, run_probe
    from cluster.capture.settings import CaptureSettings
    from cluster.runtime.progress_bars import counter

    job = load_job_of(arguments, CaptureSettings)
    root = arguments.root.resolve()
    reference = reference_job(job_path(arguments), arguments.overrides, arguments.reference, root)
    if arguments.address:
        job, reference = (each.model_copy(update={"address": arguments.address}) for each in (job, reference))
    probe = run_probe(job, reference, _examples(arguments), counter("compare", "examples"))
    rates = {
        name: outcome.rows / outcome.seconds if outcome.seconds else 0.0
        for name, outcome in (("engine", probe.engine), ("reference", probe.reference))
    }
    heads = [
        f"probe: {name}: {each.engine.kind}, {each.teacher.model}, {dtype}, {rates[name]:,.0f} tokens/s"
        for name, each, dtype in zip(("engine", "reference"), (job, reference), probe.dtypes, strict=True)
    ]
    captures = {"engine": asdict(probe.engine), "reference": asdict(probe.reference), "tokens_per_s": rates}
    return _result(probe.comparison, arguments.max_kl, heads, captures)


def _examples(arguments: argparse.Namespace) -> int:
    count = EXAMPLES if arguments.examples is None else arguments.examples
    if count < 1:
        raise InputError(f"--examples {count}: give 1 or more")
    if arguments.max_kl is not None and not arguments.max_kl > 0:
        raise InputError(f"--max-kl {arguments.max_kl:g}: give a number of nats above 0, such as 0.01")
    return int(count)


def _result(found: "StoreComparison", max_kl: float | None, heads: list[str], data: dict[str, Any]) -> Result:
    is_far = max_kl is not None and not found.kl.mean <= max_kl
    verdict = [f"mean divergence {found.kl.mean:.2e} is above --max-kl {max_kl:g}"] if is_far else []
    return Result(
        "\n".join([*heads, *_lines(found), *verdict]),
        {**found.to_document(), **data, "max_kl": max_kl},
        exit_code=1 if is_far else 0,
    )


def _lines(found: "StoreComparison") -> list[str]:
    cut = f"; {found.other_tokens:,} of them up to the first other token" if found.other_tokens else ""
    left_out = [
        *([f"{found.only_reference:,} in the first alone"] if found.only_reference else []),
        *([f"{found.only_other:,} in the other alone"] if found.only_other else []),
    ]
    return [
        f"{found.rows:,} rows of {found.examples:,} examples{cut}"
        + (f"; left out: {', '.join(left_out)}" if left_out else ""),
        f"{'':<34}{'mean':>11}{'median':>11}{'99%':>11}{'max':>11}",
        _line("divergence, nats", found.kl),
        _line("total variation", found.total_variation),
        _line("error of the first log-probability", found.first_error),
        f"the same most probable token: {found.same_first:.2%}; shared ids: {found.shared:.2%}",
        f"log-probability of the texts: {found.label:+.2e} nats a token higher in the first",
        *(
            f"far apart: token {row.position} (id {row.token}) of example {row.example!r}, key {row.key[:12]}, "
            f"{row.kl:.2e} nats"
            for row in found.worst
        ),
    ]


def _line(name: str, spread: "Spread") -> str:
    return f"{name:<34}" + "".join(f"{value:>11.2e}" for value in (spread.mean, spread.median, spread.p99, spread.max))
