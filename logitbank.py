"""logitbank: offline distillation of language models, under one import name.

The four packages cache, teacher_serving, student and cluster have names that other projects use as well. This module
offers their public names in one place. It imports a heavy library when a name that needs it is used, never before.
"""

import importlib.metadata
from typing import TYPE_CHECKING, Any

import cache
import cluster
import student
import teacher_serving

if TYPE_CHECKING:
    # The packages list their public names, so that this module needs no list of its own.
    from cache import *  # noqa: F403
    from cluster import *  # noqa: F403
    from student import *  # noqa: F403
    from teacher_serving import *  # noqa: F403

    __version__: str

_PACKAGES = (cache, teacher_serving, student, cluster)

__all__ = ["__version__"]
__all__ += [name for package in _PACKAGES for name in package.__all__]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("logitbank")
    for package in _PACKAGES:
        if name in package.__all__:
            return getattr(package, name)
    raise AttributeError(f"module 'logitbank' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
