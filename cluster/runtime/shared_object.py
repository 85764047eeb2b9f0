"""An object in Ray's object store that tasks share, and that a process keeps from one task to the next."""

from typing import Any

import ray

# The last one that this process had, by the name of its reference.
_KEPT: dict[str, Any] = {}


def share(value: object) -> list[Any]:
    """Put the object into Ray's object store. In a list, so that Ray does not fetch it for every task that gets it."""
    return [ray.put(value)]


def shared_object(shared: list[Any]) -> Any:
    """What `share` was given. Fetched once in each process, until it asks for another one."""
    name = shared[0].hex()
    if name not in _KEPT:
        _KEPT.clear()
        _KEPT[name] = ray.get(shared[0])
    return _KEPT[name]
