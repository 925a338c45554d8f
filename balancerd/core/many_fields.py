"""`dataclasses.replace` for values of many fields that are altered all the time.

It takes a tenth of the time, and the same arguments as far as types are checked. For frozen
dataclasses without slots, and without anything that is done as they are made.
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
