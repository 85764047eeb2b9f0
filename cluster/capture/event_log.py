"""A structured log of a capture: a line of JSON for every unit, and for every worker and example that is lost."""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.capture.dispatch import Events
from cluster.capture.input.work import Work


class EventLog:
    """Appends to a file. Every line has time (ISO 8601, UTC), host, pid and event. Raises OSError if it cannot."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._who = {"host": socket.gethostname(), "pid": os.getpid()}

    def write(self, event: str, **facts: Any) -> None:
        """Write a line, at once: it is there also if the process is killed after it."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **self._who, "event": event, **facts}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class LoggedEvents:
    """Writes down what a dispatcher tells, and passes it on. See Events.

    Events: "committed" with the unit's name in the store, examples, rows, bytes, refused; "lost_worker" with the number
    of times; "divided"; "given_up" with the reason; "joined" with the number of engines. All but the last have `work`,
    the name of the unit in messages, and `keys` of its responses.
    """

    def __init__(self, inner: Events, log: EventLog) -> None:
        self._inner, self._log = inner, log

    def done(self, work: Work, result: Any) -> None:
        """See Events."""
        facts = {name: getattr(result, name) for name in ("unit", "examples", "rows", "bytes", "refused")}
        # Another driver may have committed the same unit before.
        self._write("committed" if result.is_committed else "was_committed", work, **facts)
        self._inner.done(work, result)

    def joined(self, workers: int) -> None:
        """See Events."""
        self._log.write("joined", engines=workers)
        self._inner.joined(workers)

    def died(self, work: Work) -> None:
        """See Events."""
        self._write("lost_worker", work, times=work.deaths)
        self._inner.died(work)

    def divided(self, work: Work) -> None:
        """See Events."""
        self._write("divided", work, times=work.deaths)
        self._inner.divided(work)

    def guilty(self, work: Work, reason: str) -> None:
        """See Events."""
        self._write("given_up", work, reason=reason)
        self._inner.guilty(work, reason)

    def polled(self) -> None:
        """See Events."""
        self._inner.polled()

    def _write(self, event: str, work: Work, **facts: Any) -> None:
        self._log.write(event, work=work.name, **facts, keys=[key.tobytes().hex() for key in work.keys])
