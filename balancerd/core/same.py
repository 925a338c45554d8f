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
    """The values, those that are equal to what they were as the same objects; and the same mapping
    where all of them are: so what was worked out from them is found by them."""
    if not _very_same(now, before):
        now = {name: _older(value, before.get(name)) for name, value in now.items()}
    return before if _very_same(now, before) else MappingProxyType(now)


def _very_same(now: Mapping[str, T], before: Mapping[str, T]) -> bool:
    same = len(now) == len(before) and all(map(is_, now.values(), before.values()))
    return same and now.keys() == before.keys()


def _older(value: T, old: T | None) -> T:
    return old if old is not None and (old is value or old == value) else value
