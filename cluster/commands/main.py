"""The `logitbank` command: the parser, and what each outcome means for the exit code."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import shtab

from cache.errors import LogitbankError
from cluster.commands.alignment_verb import add_alignment_verb
from cluster.commands.comparison_verbs import add_comparison_verbs
from cluster.commands.exchange_verbs import add_exchange_verbs
from cluster.commands.job_verbs import add_job_verbs
from cluster.commands.quarantine_verb import add_quarantine_verb
from cluster.commands.ray_job_verbs import add_ray_job_verbs
from cluster.commands.removal_verbs import add_removal_verbs
from cluster.commands.state_verbs import add_state_verbs
from cluster.commands.step_by_step.verb import add_step_by_step_verb
from cluster.commands.store_verbs import add_store_verbs
from cluster.commands.verbs import Result, Verbs
from cluster.runtime.progress_bars import close_bars


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code.

    An error that the user can correct is one line on standard error, with exit code 2.
    """
    try:
        arguments = build_parser().parse_args(argv)
        return _run_verb(arguments)
    except LogitbankError as error:
        close_bars()
        print(f"logitbank: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        close_bars()
        print(f"logitbank: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        close_bars()
        print("logitbank: interrupted; run the same command again to continue", file=sys.stderr)
        return 128 + getattr(error, "number", signal.SIGINT)


def entry_point() -> None:
    """Run the command of this process. Called before any heavy library is imported."""
    _set_environment()
    sys.exit(main())


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="logitbank",
        description="Offline distillation of language models: capture a teacher once, train any number of students.",
    )
    top.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
    top.add_argument("--root", type=Path, default=Path.cwd(), help="folder of relative paths (default: this folder)")
    shtab.add_argument_to(top, "--print-completion", help="print the completion script for a shell and exit")
    verbs = Verbs(top)
    add_job_verbs(verbs)
    add_state_verbs(verbs)
    add_store_verbs(verbs)
    add_removal_verbs(verbs)
    add_quarantine_verb(verbs)
    add_exchange_verbs(verbs)
    add_alignment_verb(verbs)
    add_comparison_verbs(verbs)
    add_step_by_step_verb(verbs)
    add_ray_job_verbs(verbs, build_parser)
    return top


class _PrintVersion(argparse.Action):
    """Read the version only when it is requested."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import logitbank

        print(f"logitbank {logitbank.__version__}")
        parser.exit()


def _run_verb(arguments: argparse.Namespace) -> int:
    # With --json, standard output carries the result alone: all other lines go to standard error.
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        result: Result = arguments.run(arguments)
    text = result.to_json() if arguments.json else result.text
    if text:
        try:
            print(text, flush=True)
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return result.exit_code


def _set_environment() -> None:
    """Set what libraries read at their import."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # reason: teacher_serving/engines/process.py
    # Ray's own commands use the token of the user where there is one. So does this one.
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if "RAY_AUTH_TOKEN" in os.environ or token.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


if __name__ == "__main__":
    entry_point()
