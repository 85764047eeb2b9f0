"""Ranks that send their part of each checkpoint to the mirror while the run goes on, and fetch it at a start."""

import fcntl
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cache.errors import StoreError
from student.training.mirror.mirrored_checkpoints import MirroredCheckpoints, files_of, is_of_a_rank, rank_of
from student.training.mirror.run_mirror import AT_END, RECORD, WITH_CHECKPOINTS, RunMirror
from student.training.planning.plan import PLAN
from student.training.run_files import CHECKPOINTS, checkpoint_folder, read_progress

POLL_SECONDS = 0.5
# Ranks wait so long for one that copies. Collectives of the training itself give up after minutes.
PATIENCE = timedelta(days=1)


class CheckpointCopies:
    """This rank's side of the mirror. Every rank makes one once the group of ranks has formed, and restores first.

    A checkpoint is sent by a thread while the run goes on; one at a time is on its way. A copy that fails costs a line
    in the log, because the next one makes up for it; the copy of the end must succeed.
    """

    def __init__(self, output: Path, uri: str, keep: int) -> None:
        self._mirror, self._output, self._keep = RunMirror(output, uri), output, keep
        self._checkpoints = output / CHECKPOINTS
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)
        self._start = self._from_first_rank(uuid.uuid4().hex[:12])
        self._pool = ThreadPoolExecutor(1, "mirror")
        self._sending: Future[None] | None = None
        self._error: StoreError | None = None
        self._copies = MirroredCheckpoints(self._mirror, self._start, self._ranks)
        # Those ranks have sent what they ever will of what is on its way.
        self._others_are_done = threading.Event()
        self._is_shared = self._folder_is_shared()

    def restore(self) -> None:
        """Bring the run into the folder of this machine, if the mirror is ahead of it. Every rank must call it.

        Where machines do not share the folder, what the mirror has decides: later checkpoints are removed, of which no
        machine has all. One of which the machine of rank 0 has all is sent first: the run was on that machine alone.
        """
        if self._rank == 0:
            self._copies.take_over()
        # One rank decides for all: the mirror may change meanwhile.
        progress = self._from_first_rank(self._mirror.progress() if self._rank == 0 else None)
        if self._is_shared:
            mine = read_progress(self._checkpoints)
            if self._rank == 0 and progress and (mine is None or mine["step"] <= progress["step"]):
                self._copies.require_whole(progress)
                if self._mirror.is_ahead():  # a driver may have brought the record, where there is one
                    self._mirror.fetch_record()
                self._copies.fetch(progress, self._rank, every_rank=True)
        else:
            if self._rank == 0 and self._send_what_only_this_machine_has(progress):
                progress = self._mirror.progress()
            progress = self._from_first_rank(progress)
            with self._alone_on_machine():
                if os.environ.get("LOCAL_RANK", "0") == "0":
                    for name in RECORD:
                        self._mirror.fetch(name)
                if progress is None:
                    shutil.rmtree(self._checkpoints, ignore_errors=True)
                else:
                    self._copies.fetch(progress, self._rank, every_rank=progress["ranks"] != self._ranks)
        self._barrier()

    def share_plan(self) -> None:
        """Give every machine the plan that rank 0 has made. Every rank must call it."""
        if self._rank == 0:
            self._mirror.send([PLAN])
        self._barrier()
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
        self._barrier()
        if self._rank == 0:
            self._others_are_done.set()
            self._error = _error_of(sending)
        self._barrier()
        if self._error is not None:
            logging.getLogger(__name__).warning("%s; the next checkpoint makes up for it", self._error)

    def finish(self) -> None:
        """Copy the end of the run, with its last checkpoint. Every rank must call it.

        A run whose last steps changed nothing has no checkpoint of them. Raises StoreError if the mirror does not get
        all of it.
        """
        self.wait()
        mine, progress = self._from_first_rank(
            (read_progress(self._checkpoints), self._mirror.progress()) if self._rank == 0 else None
        )
        if mine is not None and (progress is None or progress["step"] != mine["step"]):
            self.send(mine["step"])
            self.wait()
            if self._error is not None:
                raise self._error
        if self._rank == 0:
            self._copies.require_own()
            self._mirror.send_result()
            if (current := self._mirror.progress()) is not None:
                self._copies.remove_older(current, 1)

    def close(self) -> None:
        """Give up what is on its way."""
        self._others_are_done.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, folder: Path, document: dict[str, Any] | None) -> None:
        """Send this rank's files; rank 0 then waits for those of the others, and makes it the current checkpoint."""
        copy = self._copies.copy_of(folder)
        mine = {name: path for name, path in files_of(folder).items() if rank_of(name) == self._rank}
        self._copies.send_files(copy, self._rank, mine)
        if document is None:
            return
        self._copies.send_best(document["verdict"]["best_step"])
        self._mirror.send(WITH_CHECKPOINTS)
        self._wait_for_others(copy)
        progress = self._copies.commit(folder, document, self._copies.sent_files(copy))
        self._copies.remove_older(progress, self._keep)

    def _send_what_only_this_machine_has(self, progress: dict[str, Any] | None) -> bool:
        """Make a whole checkpoint of this folder the current one of the mirror, if that is behind; rank 0 does it.

        progress: of the mirror. Returns whether it was sent.
        """
        mine = read_progress(self._checkpoints)
        if mine is None or (progress is not None and progress["step"] >= mine["step"]):
            return False
        folder = checkpoint_folder(self._checkpoints, mine["step"])
        files = files_of(folder)
        written_by = {rank_of(name) for name in files if is_of_a_rank(name)}
        if not files or (written_by and written_by != set(range(mine["ranks"]))):
            return False
        self._copies.send_files(self._copies.copy_of(folder), 0, files)
        self._copies.send_best(mine["verdict"]["best_step"])
        self._mirror.send([PLAN, *AT_END])
        self._copies.commit(folder, mine, {name: path.stat().st_size for name, path in files.items()})
        return True

    def _wait_for_others(self, copy: str) -> None:
        """Return when all ranks have sent their files. Raises StoreError if one never will."""
        while True:
            is_over = self._others_are_done.is_set()
            sent = self._copies.count_sent(copy)
            if sent == self._ranks:
                return
            if is_over:
                raise StoreError(f"{self._mirror}: {sent} of {self._ranks} ranks could copy their part of {copy}")
            self._others_are_done.wait(POLL_SECONDS)

    def _folder_is_shared(self) -> bool:
        """Whether all ranks see the files of rank 0."""
        probe = self._output / f".{self._start}"
        self._output.mkdir(parents=True, exist_ok=True)
        if self._rank == 0:
            probe.touch()
        self._barrier()
        seen = torch.tensor(int(probe.exists()))
        dist.all_reduce(seen, dist.ReduceOp.MIN, group=self._group)
        if self._rank == 0:
            probe.unlink()
        return bool(seen)

    @contextmanager
    def _alone_on_machine(self) -> Iterator[None]:
        """One rank after the other, where several share a folder."""
        with (self._output / ".mirror.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _from_first_rank(self, value: Any) -> Any:
        """The value that rank 0 has."""
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def _barrier(self) -> None:
        """Wait for all ranks, also while one of them copies for hours."""
        dist.barrier(group=self._group)


def _error_of(sending: "Future[None]") -> StoreError | None:
    """Wait for what is on its way. Returns why it failed, if the mirror could not be reached."""
    try:
        sending.result()
    except StoreError as error:
        return error
    return None
