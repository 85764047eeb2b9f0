"""Checkpoints in the mirror: their files, the one that is current, and what is removed.

Nothing here knows of the group of ranks.
"""

import json
import re
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from cache.errors import StoreError
from cache.json_documents import write_json
from student.training.engine.checkpoints import universal_checkpoint
from student.training.mirror.run_mirror import RunMirror
from student.training.run_files import BEST, CHECKPOINTS, MODEL, PROGRESS, checkpoint_folder

# The rank in the name of a file that DeepSpeed writes for each rank, in the second form with an optimizer on an NVMe
# disk. All others are of rank 0.
_RANK = re.compile(r"zero_pp_rank_(\d+)_|offloaded_tensors/rank(\d+)/")
# In a checkpoint of the folder: the name of its copy.
COPY = ".copy"
SENT = "sent-"
# In the mirror: the start of the ranks that writes to it.
OWNER = "owner.json"


class MirroredCheckpoints:
    """The checkpoints of a run in its mirror. start: a name of this start of its ranks; ranks: their number."""

    def __init__(self, mirror: RunMirror, start: str, ranks: int) -> None:
        self._mirror, self._start, self._ranks = mirror, start, ranks
        self._output, self._checkpoints = mirror.output, mirror.output / CHECKPOINTS
        self._best_sent: int | None = None

    def copy_of(self, folder: Path) -> str:
        """The name of this start's copy of a checkpoint of the folder."""
        return f"{folder.name}-{self._start}"

    def take_over(self) -> None:
        """Let this start write to the mirror, and no earlier one."""
        self._mirror.files.write(f"{CHECKPOINTS}/{OWNER}", json.dumps({"start": self._start}).encode())

    def commit(self, folder: Path, document: dict[str, Any], files: dict[str, int]) -> dict[str, Any]:
        """Make a copy, of which all files are sent, the current checkpoint. Returns its progress.

        document: the progress of the checkpoint. files: bytes of its files by name.
        Raises StoreError if it is not whole, or a later start has the mirror.
        """
        copy = self.copy_of(folder)
        progress = {**document, "copy": copy, "files": files}
        self.require_own()
        self.require_whole(progress)
        self._mirror.files.write(f"{CHECKPOINTS}/{PROGRESS}", json.dumps(progress).encode())
        with suppress(OSError):  # then a start fetches what it has
            (folder / COPY).write_text(copy)
        return progress

    def count_sent(self, copy: str) -> int:
        """How many ranks have sent all of their files of a copy."""
        return sum(f"/{SENT}" in name for name in self._mirror.files.sizes(f"{CHECKPOINTS}/{copy}"))

    def send_files(self, copy: str, rank: int, mine: dict[str, Path]) -> None:
        """Send a rank's files of a checkpoint, and then their list."""
        for name, path in mine.items():
            self._mirror.files.upload(f"{CHECKPOINTS}/{copy}/{name}", path)
        sizes = {name: path.stat().st_size for name, path in mine.items()}
        self._mirror.files.write(f"{CHECKPOINTS}/{copy}/{SENT}{rank}", json.dumps(sizes).encode())

    def sent_files(self, copy: str) -> dict[str, int]:
        """Bytes of all files that the ranks have sent of a checkpoint, by name."""
        found: dict[str, int] = {}
        for rank in range(self._ranks):
            found |= self._mirror.document(f"{CHECKPOINTS}/{copy}/{SENT}{rank}") or {}
        return found

    def send_best(self, step: int | None) -> None:
        """Send the best student, once. At the end of a run it has become the model."""
        source = self._output / BEST if (self._output / BEST).exists() else self._output / MODEL
        if step is not None and step != self._best_sent and source.exists():
            self._mirror.send_folder(source, f"{BEST}/step-{step}")
            self._best_sent = step

    def require_own(self) -> None:
        """Raise StoreError if another start of the run, maybe on another machine, has taken over the mirror."""
        owner = self._mirror.document(f"{CHECKPOINTS}/{OWNER}")
        if owner is not None and owner["start"] != self._start:
            raise StoreError(f"{self._mirror}: a later start of this run writes to it; this one no longer does")

    def require_whole(self, progress: dict[str, Any]) -> None:
        """Raise StoreError if the mirror lacks a file of a checkpoint: another run that had the mirror removed it."""
        copy, found = progress["copy"], self._mirror.files.sizes(f"{CHECKPOINTS}/{progress['copy']}")
        for name, size in progress.get("files", {}).items():
            if found.get(f"{CHECKPOINTS}/{copy}/{name}") != size:
                raise StoreError(
                    f"{self._mirror}/{CHECKPOINTS}/{copy}/{name}: missing, or not as it was sent; does another run "
                    "have this mirror?"
                )

    def remove_older(self, progress: dict[str, Any], keep: int) -> None:
        """Remove all but the newest complete checkpoints, and best students but that of the current one."""
        files, current = self._mirror.files, progress["copy"]
        names = list(files.sizes(CHECKPOINTS))
        sent = Counter(_copy_of(name) for name in names if f"/{SENT}" in name)
        complete = sorted((copy for copy, count in sent.items() if count == self._ranks), key=_step_of)
        earlier = [copy for copy in complete if _step_of(copy) < _step_of(current)]
        kept = {current, *earlier[len(earlier) - keep + 1 :]}
        files.remove([name for name in names if name.count("/") > 1 and _copy_of(name) not in kept])
        best = f"{BEST}/step-{progress['verdict']['best_step']}/"
        files.remove([name for name in files.sizes(BEST) if not name.startswith(best)])

    def fetch(self, progress: dict[str, Any], rank: int, every_rank: bool) -> None:
        """Make the mirror's checkpoint the current one of the folder, with the files that a rank needs.

        every_rank: with the files of all ranks.
        """
        copy, folder = progress["copy"], checkpoint_folder(self._checkpoints, progress["step"])
        self.require_whole(progress)  # before what is here is removed
        if not (folder / COPY).exists() or (folder / COPY).read_text() != copy:
            shutil.rmtree(folder, ignore_errors=True)
            # Made of the files that were there.
            shutil.rmtree(self._checkpoints / universal_checkpoint(self._checkpoints, progress["step"]), True)
            folder.mkdir(parents=True)
            if progress["verdict"]["best_step"] is not None:
                self._mirror.fetch_best(progress["verdict"]["best_step"])
            (folder / COPY).write_text(copy)
        for name in self._mirror.files.sizes(f"{CHECKPOINTS}/{copy}"):
            path = folder / name.removeprefix(f"{CHECKPOINTS}/{copy}/")
            is_needed = every_rank or rank_of(name) in (rank, 0)
            if is_needed and not path.exists() and not path.name.startswith(SENT):
                self._mirror.files.download(name, path)
        write_json(folder / PROGRESS, progress)
        write_json(self._checkpoints / PROGRESS, progress)


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint of the folder, by name, without what says that it is one."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (PROGRESS, COPY)]
    return {path.relative_to(folder).as_posix(): path for path in paths}


def is_of_a_rank(name: str) -> bool:
    """Whether DeepSpeed writes a file of this kind for each rank."""
    return bool(_RANK.search(name))


def rank_of(name: str) -> int:
    """The rank that writes a file of a checkpoint."""
    found = _RANK.search(name)
    return int(found[1] or found[2]) if found else 0


def _copy_of(name: str) -> str:
    return name.split("/")[1]


def _step_of(copy: str) -> int:
    return int(copy.split("-")[1])
