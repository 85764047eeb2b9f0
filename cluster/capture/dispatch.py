"""Give units of work to actors until all are done, whatever dies meanwhile."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from cache.errors import LogitbankError, StoreError

# Deaths of workers that held one unit, and of workers beyond restart, before the job gives up.
MOST_DEATHS = 3
# A dead actor refuses calls at once until its restart ends, which takes as long as its engine takes to start.
ASK_AGAIN_S = 2.0


def dispatch(
    start_worker: Callable[[], Any],
    workers: Sequence[Any],
    units: Sequence[Any],
    done: Callable[[int, Any], None],
    in_hand: int = 1,
) -> None:
    """Call worker.capture(unit) for every unit; `done(number, result)` after each.

    in_hand: units that a worker is given at a time, so that it can write one while it asks about the next.
    Units whose worker died go back to the front of the queue. Errors that a worker raises end the job.
    """
    waiting = deque(range(len(units)))
    deaths = [0] * len(units)
    losses = 0
    idle = deque(list(workers) * in_hand)
    running: dict[Any, tuple[Any, int | None]] = {}
    resting: list[tuple[float, Any]] = []
    successors: dict[Any, Any] = {}  # of workers that died for good, however many calls tell of it
    while waiting or any(number is not None for _, number in running.values()):
        now = time.monotonic()
        for _, worker in [item for item in resting if item[0] <= now]:
            running[worker.ready.remote()] = (worker, None)
        resting = [item for item in resting if item[0] > now]
        while idle and waiting:
            worker, number = idle.popleft(), waiting.popleft()
            worker = successors.get(worker, worker)
            running[worker.capture.remote(units[number])] = (worker, number)
        if not running:
            time.sleep(0.2)
            continue
        for call in ray.wait(list(running), num_returns=1, timeout=1.0)[0]:
            worker, held = running.pop(call)
            try:
                result = ray.get(call)
            except RayTaskError as error:
                raise plain(error) from error
            except RayActorError as error:
                if held is not None:
                    deaths[held] += 1
                    if deaths[held] >= MOST_DEATHS:
                        raise StoreError(
                            f"unit {held + 1} of {len(units)} lost its worker {MOST_DEATHS} times: {error}"
                        ) from error
                    waiting.appendleft(held)
                if isinstance(error, ActorDiedError):
                    if worker not in successors:
                        losses += 1
                        if losses >= MOST_DEATHS:
                            raise StoreError(f"{losses} workers died beyond restart: {error}") from error
                        successors[worker] = start_worker()
                    worker = successors[worker]
                resting.append((time.monotonic() + ASK_AGAIN_S, worker))
            else:
                idle.append(worker)
                if held is not None:
                    done(held, result)


def wait_ready(workers: Sequence[Any]) -> None:
    """Return when every worker is up; raises what went wrong where one cannot start."""
    try:
        ray.get([worker.ready.remote() for worker in workers])
    except (RayActorError, RayTaskError) as error:
        raise plain(error) from error


def plain(error: Exception) -> Exception:
    """The project's own error inside Ray's, where there is one: it says what to do."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, LogitbankError) else error
