"""logitbank: offline distillation of language models, under one import name.

The four packages cache, teacher_serving, student and cluster have names that other projects use as well. This module
offers their public names in one place. It imports a heavy library when a name that needs it is used, never before.
"""

from typing import TYPE_CHECKING

import cache
import cluster
import student
import teacher_serving
from cache.lazy_names import lazy_names

if TYPE_CHECKING:
    # The packages list their public names, so that this module needs no list of its own.
    from cache import *  # noqa: F403
    from cluster import *  # noqa: F403
    from student import *  # noqa: F403
    from teacher_serving import *  # noqa: F403

    __version__: str

__all__ = ["__version__"]
__all__ += cache.__all__
__all__ += teacher_serving.__all__
__all__ += student.__all__
__all__ += cluster.__all__

if not TYPE_CHECKING:
    _get_public_name, __dir__ = lazy_names(
        __name__, {package.__name__: package.__all__ for package in (cache, teacher_serving, student, cluster)}
    )

    def __getattr__(name):
        if name == "__version__":
            from importlib.metadata import version

            return version("logitbank")
        return _get_public_name(name)
