"""Keys for caches of what was worked out from a large value: the same object is the same key."""

from collections.abc import Mapping
from operator import is_
from types import MappingProxyType
from typing import Generic, TypeVar

T = TypeVar("T")


class Same(Generic[T]):
    """A value as a key by its identity, without a look at the thousands of values inside it.

    For frozen values only. The value lives as long as its key, so that its identity stays its own.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


class Alike(Generic[T]):
    """A tuple as a key by what is in it; of two, what is the same object is not looked into."""

    __slots__ = ("value",)

    def __init__(self, value: tuple[T, ...]) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and other.value == self.value

    def __hash__(self) -> int:
        return len(self.value)


def kept(now: dict[str, T], before: Mapping[str, T]) -> Mapping[str, T]:
    """The values as they were, if they are still the very same: the same mapping, and so the key
    of what was worked out from it."""
    same = len(now) == len(before) and all(map(is_, now.values(), before.values()))
    return before if same and now.keys() == before.keys() else MappingProxyType(now)
