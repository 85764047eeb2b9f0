"""Ranks that send their part of each checkpoint to the mirror while the run goes on, and fetch it at a start."""

import fcntl
import json
import logging
import os
import re
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cache.errors import StoreError
from cache.json_documents import write_json
from student.training.mirror.run_mirror import RECORD, WITH_CHECKPOINTS, RunMirror
from student.training.planning.plan import PLAN
from student.training.run_files import BEST, CHECKPOINTS, PROGRESS, checkpoint_folder, read_progress

# The rank in the name of a file that DeepSpeed writes for each rank. All others are of rank 0.
_RANK = re.compile(r"zero_pp_rank_(\d+)_")
# In a checkpoint of the folder: the name of its copy.
COPY = ".copy"
SENT = "sent-"
POLL_SECONDS = 0.5


class CheckpointCopies:
    """This rank's side of the mirror. Every rank makes one once the group of ranks has formed, and restores first.

    A checkpoint is sent by a thread while the run goes on; one at a time is on its way. A copy that fails costs a line
    in the log, because the next one makes up for it; the copy of the end must succeed.
    """

    def __init__(self, output: Path, uri: str, keep: int) -> None:
        self._mirror, self._output, self._keep = RunMirror(output, uri), output, keep
        self._checkpoints = output / CHECKPOINTS
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        self._start = _from_first_rank(uuid.uuid4().hex[:12])
        self._pool = ThreadPoolExecutor(1, "mirror")
        self._sending: Future[None] | None = None
        self._error: StoreError | None = None
        # Those ranks have sent what they ever will of what is on its way.
        self._others_are_done = threading.Event()
        self._is_shared = self._folder_is_shared()

    def restore(self) -> None:
        """Bring the run into the folder of this machine, if the mirror is ahead of it. Every rank must call it.

        Where machines do not share the folder, what the mirror has decides: later checkpoints are removed, of which no
        machine has all.
        """
        # One rank decides for all: the mirror may change meanwhile.
        progress = _from_first_rank(self._mirror.progress() if self._rank == 0 else None)
        if self._is_shared:
            mine = read_progress(self._checkpoints)
            if self._rank == 0 and progress and (mine is None or mine["step"] <= progress["step"]):
                if self._mirror.is_ahead():  # a driver may have brought the record, where there is one
                    self._mirror.fetch_record()
                self._fetch(progress, every_rank=True)
        else:
            with self._alone_on_machine():
                if os.environ.get("LOCAL_RANK", "0") == "0":
                    for name in RECORD:
                        self._mirror.fetch(name)
                if progress is None:
                    shutil.rmtree(self._checkpoints, ignore_errors=True)
                else:
                    self._fetch(progress, every_rank=progress["ranks"] != self._ranks)
        dist.barrier()

    def share_plan(self) -> None:
        """Give every machine the plan that rank 0 has made. Every rank must call it."""
        if self._rank == 0:
            self._mirror.send([PLAN])
        dist.barrier()
        if not self._is_shared and self._rank != 0:
            with self._alone_on_machine():
                self._mirror.fetch(PLAN)

    def send(self, step: int) -> None:
        """Copy the checkpoint of a step, which all ranks have written, in the background. Every rank must call it."""
        self.wait()
        document = read_progress(self._checkpoints) if self._rank == 0 else None
        self._others_are_done.clear()
        self._sending = self._pool.submit(self._send, checkpoint_folder(self._checkpoints, step), document)

    def wait(self) -> None:
        """Return when nothing is on its way. Every rank must call it, before a file that is being sent may change."""
        sending, self._sending = self._sending, None
        if sending is None:
            return
        if self._rank != 0:
            self._error = _error_of(sending)
        dist.barrier()
        if self._rank == 0:
            self._others_are_done.set()
            self._error = _error_of(sending)
        if self._error is not None:
            logging.getLogger(__name__).warning("%s; the next checkpoint makes up for it", self._error)

    def finish(self, step: int) -> None:
        """Copy the end of the run, after `step` steps. Every rank must call it.

        Raises StoreError if the mirror does not get all of it.
        """
        self.wait()
        progress = _from_first_rank(self._mirror.progress() if self._rank == 0 else None)
        if progress is None or progress["step"] != step:
            self.send(step)
            self.wait()
            if self._error is not None:
                raise self._error
        if self._rank == 0:
            self._mirror.send_result()
            self._remove_older(self._mirror.progress() or {}, 1)

    def close(self) -> None:
        """Give up what is on its way."""
        self._others_are_done.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, folder: Path, document: dict[str, Any] | None) -> None:
        """Send this rank's files; rank 0 then waits for those of the others, and makes it the current checkpoint."""
        files, copy = self._mirror.files, f"{folder.name}-{self._start}"
        for path in sorted(folder.rglob("*")):
            if path.is_file() and _rank_of(path.name) == self._rank and path.name not in (PROGRESS, COPY):
                files.upload(f"{CHECKPOINTS}/{copy}/{path.relative_to(folder).as_posix()}", path)
        files.write(f"{CHECKPOINTS}/{copy}/{SENT}{self._rank}", b"")
        if document is None:
            return
        best = document["verdict"]["best_step"]
        if best is not None and (self._output / BEST).exists():
            self._mirror.send_folder(self._output / BEST, f"{BEST}/step-{best}")
        self._mirror.send(WITH_CHECKPOINTS)
        self._wait_for_others(copy)
        progress = {**document, "copy": copy}
        files.write(f"{CHECKPOINTS}/{PROGRESS}", json.dumps(progress).encode())
        (folder / COPY).write_text(copy)
        self._remove_older(progress, self._keep)

    def _wait_for_others(self, copy: str) -> None:
        """Return when all ranks have sent their files. Raises StoreError if one never will."""
        while True:
            is_over = self._others_are_done.is_set()
            sent = sum(f"/{SENT}" in name for name in self._mirror.files.sizes(f"{CHECKPOINTS}/{copy}"))
            if sent == self._ranks:
                return
            if is_over:
                raise StoreError(f"{self._mirror}: {sent} of {self._ranks} ranks could copy their part of {copy}")
            self._others_are_done.wait(POLL_SECONDS)

    def _remove_older(self, progress: dict[str, Any], keep: int) -> None:
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

    def _fetch(self, progress: dict[str, Any], every_rank: bool) -> None:
        """Make the mirror's checkpoint the current one of the folder, with the files that this rank needs.

        every_rank: with the files of all ranks.
        """
        copy, folder = progress["copy"], checkpoint_folder(self._checkpoints, progress["step"])
        if not (folder / COPY).exists() or (folder / COPY).read_text() != copy:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            if progress["verdict"]["best_step"] is not None:
                self._mirror.fetch_best(progress["verdict"]["best_step"])
            (folder / COPY).write_text(copy)
        for name in self._mirror.files.sizes(f"{CHECKPOINTS}/{copy}"):
            path = folder / name.removeprefix(f"{CHECKPOINTS}/{copy}/")
            is_needed = every_rank or _rank_of(path.name) in (self._rank, 0)
            if is_needed and not path.exists() and not path.name.startswith(SENT):
                self._mirror.files.download(name, path)
        write_json(folder / PROGRESS, progress)
        write_json(self._checkpoints / PROGRESS, progress)

    def _folder_is_shared(self) -> bool:
        """Whether all ranks see the files of rank 0."""
        probe = self._output / f".{self._start}"
        self._output.mkdir(parents=True, exist_ok=True)
        if self._rank == 0:
            probe.touch()
        dist.barrier()
        seen = torch.tensor(int(probe.exists()), device=_device())
        dist.all_reduce(seen, dist.ReduceOp.MIN)
        if self._rank == 0:
            probe.unlink()
        return bool(seen)

    @contextmanager
    def _alone_on_machine(self) -> Iterator[None]:
        """One rank after the other, where several share a folder."""
        with (self._output / ".mirror.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _from_first_rank(value: Any) -> Any:
    """The value that rank 0 has."""
    values = [value]
    dist.broadcast_object_list(values, src=0, device=_device())
    return values[0]


def _device() -> torch.device | None:
    """Where tensors of the group of ranks are: NCCL sends from a GPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if dist.get_backend() == "nccl" else None


def _error_of(sending: "Future[None]") -> StoreError | None:
    """Wait for what is on its way. Returns why it failed, if the mirror could not be reached."""
    try:
        sending.result()
    except StoreError as error:
        return error
    return None


def _rank_of(name: str) -> int:
    found = _RANK.search(name)
    return int(found[1]) if found else 0


def _copy_of(name: str) -> str:
    return name.split("/")[1]


def _step_of(copy: str) -> int:
    return int(copy.split("-")[1])
