"""What a peer of the store is: the same rows, written and read by others, as ids and log-probabilities."""

import importlib
from pathlib import Path
from typing import Any, Protocol

Rates = tuple[list[float], list[float]] | None


class Peer(Protocol):
    """A way to keep rows. Its constructor writes them, or raises ImportError where its library is not installed.

    share: part of the documents that a measurement reads, for slow readers.
    rates: tokens a CPU second of each repeat, random and windowed, where the peer measures them itself; `read` then
        cannot be called.
    """

    size: int | None
    write_seconds: float | None
    share: float
    rates: Rates

    def read(self, documents: list[int]) -> Any:
        """Ids and log-probabilities of each of the documents, as arrays."""
        ...

    def accuracy(self) -> tuple[float | None, float | None]:
        """Mean KL(given || stored) and largest error in nats; None if nothing is lost or it was not measured."""
        ...


def imported(module: str, remedy: str) -> Any:
    """The module. Raises ImportError with the remedy where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"needs {remedy} ({error})") from error


def folder_size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
