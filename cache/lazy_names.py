"""Public names of a package that are imported at first use, because the libraries behind them take time to load."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package whose public names come from other modules.

    modules: the public names that each module defines, by the module's import path. `__getattr__` imports the module of
    a name when the name is first used, and raises AttributeError for any other name. `__dir__` adds `__all__`. Bind
    both functions under `if not TYPE_CHECKING`: a type checker accepts any name from a package with a `__getattr__`.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def get_attribute(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module_of[name]), name)

    def list_names() -> list[str]:
        namespace = vars(sys.modules[package])
        return sorted({*namespace, *namespace["__all__"]})

    return get_attribute, list_names
