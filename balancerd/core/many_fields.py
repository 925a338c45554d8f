"""`dataclasses.replace` for values of many fields that are altered all the time.

It takes a tenth of the time, and the same arguments as far as types are checked. For dataclasses
without slots, as they are: what is done where one is made anew is not done again.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import replace as replace
else:

    def replace(value, /, **changes):
        """The value with other ones in some of its fields."""
        other = object.__new__(type(value))
        other.__dict__.update(value.__dict__, **changes)
        return other
