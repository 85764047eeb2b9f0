"""A property that is computed once, and that any thread and any child of a fork may read."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class lazy_value(Generic[Value]):  # noqa: N801, a decorator
    """A property that is computed at its first use and kept in the instance, also of a frozen dataclass.

    functools.cached_property has a lock before Python 3.12: in the child of a fork, nobody would release it if a thread
    of the parent had it. Two threads may compute the value twice.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> "lazy_value[Value]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Value: ...
    def __get__(self, instance: Any, owner: type | None = None) -> "Value | lazy_value[Value]":
        if instance is None:
            return self
        value = instance.__dict__[self._compute.__name__] = self._compute(instance)
        return value
