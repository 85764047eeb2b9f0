"""Registry: the implementations of one kind, by name. Adding one means adding one file; no list has to be edited.

An implementation is an object with a `name`, bound to a fixed attribute of a module: OBJECTIVE in
student/losses/objectives/reverse_kl.py, for example. Modules are found in two places:

- the folder of the kind (modules and sub-packages, in order of their names);
- plugins: modules outside this project, named in the environment variable LOGITBANK_PLUGINS (separated by commas), or
  as entry points of the group "logitbank" of an installed distribution.
"""

import difflib
import importlib
import importlib.metadata
import os
import pkgutil
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Generic, Protocol, TypeVar

from cache.errors import InputError

PLUGINS_VARIABLE = "LOGITBANK_PLUGINS"


class Named(Protocol):
    """An implementation: job files select it by this name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Implementations of one kind. Modules are imported at the first lookup, never before.

    kind: what messages call it, such as "objective". package: import path of the folder. attribute: name of the
    variable that holds the implementation in each module; modules without it are ignored.
    """

    def __init__(self, kind: str, package: str, attribute: str) -> None:
        self.kind, self.package, self.attribute = kind, package, attribute
        self._items: dict[str, T] | None = None
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> T:
        """The implementation with this name. Raises InputError, listing the valid names, if there is none."""
        try:
            return self._load()[self.check_name(name)]
        except ValueError as error:
            raise InputError(str(error)) from None

    def __iter__(self) -> Iterator[T]:
        return iter(self._load().values())

    def names(self) -> tuple[str, ...]:
        """All names: those of the folder in alphabetical order, then those of plugins."""
        return tuple(self._load())

    def check_name(self, name: str) -> str:
        """The name itself. Raises ValueError, as pydantic validators must, if nothing is registered under it."""
        if name not in self._load():
            similar = difflib.get_close_matches(name, self.names(), n=1)
            hint = f"did you mean {similar[0]!r}? " if similar else ""
            raise ValueError(f"unknown {self.kind} {name!r}; {hint}valid names: {', '.join(self.names())}")
        return name

    def add(self, item: T) -> T:
        """Register an implementation in this process only. Raises InputError if its name is taken.

        Settings classes with a `OneOf` of this registry must be imported later: they fix their choices when they are
        built.
        """
        with self._lock:
            self._insert(self._load(), item)
        return item

    def _insert(self, items: dict[str, T], item: T) -> None:
        if item.name in items and items[item.name] is not item:
            raise InputError(f"{self.kind} {item.name!r} is registered twice; give one of them another name")
        items[item.name] = item

    def _load(self) -> dict[str, T]:
        if self._items is None:
            with self._lock:
                # Another thread may have been faster. A half-filled registry is never visible.
                if self._items is None:
                    self._items = self._find_items()
        return self._items

    def _find_items(self) -> dict[str, T]:
        items: dict[str, T] = {}
        for module in _modules_of(self.package):
            self._insert_from(items, importlib.import_module(module))
        for name in plugin_modules():
            try:
                self._insert_from(items, importlib.import_module(name))
            except InputError:
                raise
            except Exception as error:  # a plugin may raise anything
                is_not_found = isinstance(error, ModuleNotFoundError) and name.startswith(str(error.name))
                fix = "add the folder that contains it to PYTHONPATH" if is_not_found else "correct it"
                raise InputError(
                    f"plugin {name!r}: {type(error).__name__}: {error}; {fix}, or remove it from "
                    f"{PLUGINS_VARIABLE} or from the installed distributions"
                ) from error
        return items

    def _insert_from(self, items: dict[str, T], module: ModuleType) -> None:
        item: T | None = getattr(module, self.attribute, None)
        if item is not None:
            self._insert(items, item)


def plugin_modules() -> list[str]:
    """Import paths of all plugins: those in the environment variable first, then those of installed distributions."""
    listed = [name.strip() for name in os.environ.get(PLUGINS_VARIABLE, "").split(",")]
    installed = [entry.module for entry in importlib.metadata.entry_points(group="logitbank")]
    return [name for name in dict.fromkeys([*listed, *installed]) if name]


def _modules_of(package: str) -> list[str]:
    folder = importlib.import_module(package)
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(folder.__path__)]
