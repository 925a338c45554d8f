"""What somebody may have meant who wrote a word that does not exist."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import takewhile


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)` for the known word that looks most alike; "" where none does. Of
    several, as names with numbers are, it is the first that begins most like it."""
    word = word.lower()
    least = 0.6 if len(word) > 3 else 0.5
    ranked = {other: (_likeness(word, other), _shared(word, other)) for other in known}
    found = max(sorted(ranked), key=lambda other: ranked[other], default="")
    return f' (did you mean "{found}"?)' if found and ranked[found][0] >= least else ""


def _shared(word: str, other: str) -> int:
    """With how many of the same letters both begin."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(word, other, strict=False))
    )


def _likeness(word: str, other: str) -> float:
    """From 0 to 1; 0 as soon as it is clear that it is little."""
    matcher = SequenceMatcher(None, other, word)
    bound = min(matcher.real_quick_ratio(), matcher.quick_ratio())
    return matcher.ratio() if bound >= 0.5 else 0.0
