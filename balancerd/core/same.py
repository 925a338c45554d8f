"""Keys for caches of what was worked out from a large value: the same object is the same key."""

from collections.abc import Callable, Mapping
from operator import is_
from types import MappingProxyType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
LATE = 3  # results that are kept: of all that was done, of what was before a plan, and before that


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


class Growing(Generic[T, R]):
    """What is worked out from a tuple that grows at its end: of one that begins with what was asked
    about of late only the rest is looked at.

    `more` gives the result for a tuple, from the result for its beginning and from what follows; it
    changes no result that it gave.
    """

    __slots__ = ("_begun", "_late", "_more")

    def __init__(self, nothing: R, more: Callable[[R, tuple[T, ...]], R]) -> None:
        self._begun: tuple[tuple[T, ...], R] = (), nothing
        self._late: tuple[tuple[tuple[T, ...], R], ...] = ()
        self._more = more

    def __call__(self, values: tuple[T, ...]) -> R:
        """The result for these values."""
        for known, result in self._late:
            if known is values:
                return result
        begun = [one for one in self._late if values[: len(one[0])] == one[0]]
        known, result = max(begun, key=lambda one: len(one[0]), default=self._begun)
        result = self._more(result, values[len(known) :])
        self._late = ((values, result), *self._late[: LATE - 1])
        return result


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
