"""logitbank: offline distillation of language models, under one import name.

The four packages cache, teacher_serving, student and cluster have names that other projects use as well. This module
offers their public names in one place. It imports a package when one of its names is used, never before.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache.store.logit_store import LogitStore

    __version__: str

# Public name: the module that defines it.
_MODULES = {
    "LogitStore": "cache.store.logit_store",
}

__all__ = ["LogitStore", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.metadata.version("logitbank")
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module 'logitbank' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
