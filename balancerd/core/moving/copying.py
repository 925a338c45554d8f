"""How long it takes to copy the memory of a VM that goes on writing to it.

Pre-copy sends all memory M at a rate B, then again and again what was written meanwhile at a dirty
rate D, until the rest can be sent within the pause allowed. With k rounds that is
M (1 - (D/B)^k) / (1 - D/B) bytes, and M (D/B)^k are left for the pause; it ends at all only where
D < B, or where everything fits into the pause at once. Auto-converge takes CPU from the VM round by
round, as QEMU does by default, so that D falls. Post-copy sends one round, then what is left once
more while the VM runs on the target.
"""

from dataclasses import dataclass
from math import ceil, inf, log

SWITCH_OVER = 0.05  # seconds that the hand-over takes with nothing left to send
ROUNDS_AT_MOST = 100  # more than any migration has that ends
# QEMU's defaults: a round that leaves more than half of what it sent calls for less CPU.
TRIGGER, FIRST, STEP, MOST = 0.5, 0.20, 0.10, 0.99


@dataclass(frozen=True, slots=True)
class Copy:
    """What copying takes: seconds (the pause included), bytes sent, and the pause in seconds.

    `slowed` is the largest share of its CPU that the VM loses meanwhile. A copy that never ends
    takes endlessly long.
    """

    seconds: float
    bytes: float
    downtime: float
    slowed: float = 0.0

    @property
    def ends(self) -> bool:
        """Whether it comes to an end at all."""
        return self.seconds < inf


NEVER = Copy(inf, inf, inf)


def pre_copy(memory: float, dirty_rate: float, rate: float, pause: float) -> Copy:
    """Bytes, bytes per second twice, and the seconds that the VM may stand still."""
    share = min(dirty_rate / rate, 1.0)  # no more than all of it is left to be sent again
    fits = rate * pause / memory if memory > 0 else inf
    if share <= fits:
        rounds = 1
    elif share == 1.0 or fits <= 0:
        return NEVER
    else:
        rounds = ceil(log(fits) / log(share) - 1e-9)
    left = memory * share**rounds
    sent = memory if rounds == 1 else memory * (1 - share**rounds) / (1 - share)
    return _with_pause(sent / rate, sent, left, rate)


def auto_converge(memory: float, dirty_rate: float, rate: float, pause: float) -> Copy:
    """Likewise, with the VM slowed down round by round."""
    seconds, sent, round_bytes, throttle = 0.0, 0.0, memory, 0.0
    for _ in range(ROUNDS_AT_MOST):
        lasts = round_bytes / rate
        left = min(dirty_rate * (1.0 - throttle) * lasts, memory)
        seconds, sent = seconds + lasts, sent + round_bytes
        if left <= rate * pause:
            found = _with_pause(seconds, sent, left, rate)
            return Copy(found.seconds, found.bytes, found.downtime, throttle)
        if left > TRIGGER * round_bytes:
            throttle = min(throttle + STEP if throttle else FIRST, MOST)
        round_bytes = left
    return NEVER


def post_copy(memory: float, dirty_rate: float, rate: float) -> Copy:
    """One round, the hand-over at once, and then what was written during that round."""
    again = min(memory, dirty_rate * memory / rate)
    sent = memory + again
    return Copy(sent / rate + SWITCH_OVER, sent, SWITCH_OVER)


def _with_pause(seconds: float, sent: float, left: float, rate: float) -> Copy:
    downtime = SWITCH_OVER + left / rate
    return Copy(seconds + downtime, sent + left, downtime)
