"""The mirror of a run, as the driver uses it: before the ranks start, and after they end."""

from pathlib import Path
from typing import Any

from cache.errors import InputError, StoreError
from cache.store.commits import SPEC
from cluster.runtime.outputs import locked, require_same_document
from cluster.training.step_progress import last_line_of
from student.training.mirror.run_mirror import JOB, RunMirror
from student.training.run_files import METRICS, RESULT
from student.training.settings import TrainSettings

# Of metrics.jsonl, for its last line.
TAIL_BYTES = 1 << 14
PROBE = "probe"
FIX = "correct the address or the credentials, or leave 'mirror' out"


class DriverMirror:
    """The mirror that a job names. Without one, every call does nothing.

    Every call raises StoreError if the service refuses.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self._mirror = None
        if settings.mirror is None:
            return
        _require_own_place(settings.output, settings.mirror)
        try:
            self._mirror = RunMirror(settings.output, settings.mirror)
        except (StoreError, OSError) as error:
            raise InputError(f"mirror: {error}; {FIX}") from error

    def require_same_job(self, settings: TrainSettings, changeable: frozenset[str]) -> None:
        """Raise InputError if the mirror has a run of another job. The folder of a run may be another one."""
        if self._mirror is None:
            return
        try:
            is_store = self._mirror.files.read(SPEC) is not None
        except StoreError as error:
            raise InputError(f"mirror: {error}; {FIX}") from error
        if is_store:
            raise InputError(f"mirror {self._mirror}: is a store; give a folder or an address of its own")
        earlier = self._mirror.document(JOB)
        if earlier is not None and (self._mirror.progress() or self._mirror.document(RESULT)):
            # A snapshot that the job leaves open was pinned when the run began.
            _open_snapshots(earlier, settings.model_dump(mode="json"))
            allowed = changeable | {"output"}
            require_same_document(earlier, f"mirror {self._mirror}", settings, allowed, "give another mirror")

    def require_writable(self) -> None:
        """Raise InputError if nothing can be written there: before the hours of a training, and not after them."""
        if self._mirror is not None:
            try:
                self._mirror.files.write(PROBE, b"")
                self._mirror.files.remove([PROBE])
            except StoreError as error:
                raise InputError(f"mirror: {error}; {FIX}") from error

    def fetch(self) -> None:
        """Bring the record of the run into its folder, if the mirror is ahead of it; at the end also the student."""
        if self._mirror is not None and self._mirror.is_ahead():
            with locked(self._mirror.output):
                self._mirror.fetch_record()

    def send_job(self) -> None:
        """Copy what the ranks need before their first step."""
        if self._mirror is not None:
            self._mirror.send_job()

    def send_result(self) -> None:
        """Copy the result as the driver has completed it."""
        if self._mirror is not None:
            self._mirror.send([RESULT])

    def send_missing_end(self) -> None:
        """Copy the end of a run that is complete, if an earlier call could not."""
        if self._mirror is not None and self._mirror.lacks_end():
            self._mirror.send_job()
            self._mirror.send_result()

    def last_metrics(self) -> dict[str, Any] | None:
        """The last line of metrics that has come, of ranks whose folder this machine does not have."""
        return None if self._mirror is None else last_line_of(self._mirror.files.tail(METRICS, TAIL_BYTES))


def _require_own_place(output: Path, mirror: str) -> None:
    """Raise InputError if a mirror is in its own run, or the run in it."""
    if "://" in mirror:
        return
    one, other = output.resolve(), Path(mirror).resolve()
    if one == other or one in other.parents or other in one.parents:
        raise InputError(f"mirror {mirror}: is the output of the run, in it or around it; give another folder")


def _open_snapshots(earlier: Any, now: Any) -> None:
    """Remove from an earlier job the snapshots that the job of now leaves open."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        for key, value in earlier.items():
            if key == "snapshot" and now.get(key) is None:
                earlier[key] = None
            else:
                _open_snapshots(value, now.get(key))
    elif isinstance(earlier, list) and isinstance(now, list):
        for each, other in zip(earlier, now, strict=False):
            _open_snapshots(each, other)
