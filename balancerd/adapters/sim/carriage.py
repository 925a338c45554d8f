"""Cold moves: a hypervisor writes a VM's definition down on another host, then removes it here.

As on real ones, it is there before it is gone here; a daemon that dies in between leaves both.
"""

from balancerd.adapters.sim.state import State
from balancerd.core.model import Method
from balancerd.core.observation import Presence
from balancerd.ports import BackendError

SECONDS = 1.0  # that it takes
OFF = (Presence.SHUTOFF, Presence.FAILED)
RUNS: tuple[str, int, int] = ("it runs: no cold move is possible", 55, 10)
THERE: tuple[str, int, int] = ("domain is already defined on the target", 9, 20)
NO_TARGET: tuple[str, int, int] = ("unable to connect to the target: connection timed out", 38, 7)
DIED: tuple[str, int, int] = ("end of file while reading data", 38, 7)
Error = tuple[str, int, int]  # text, code and domain


def begin(state: State, vm: int, source: int, target: int) -> Error | None:
    """Start; what the target has against it, if anything. BackendError where the VM is active."""
    if state.copies.presence(vm, source) not in OFF:
        name = state.host_name(source)
        raise BackendError(name, f"migrate {state.vm_name(vm)}", RUNS[0], *RUNS[1:])
    if not state.answers(target):
        return NO_TARGET
    if state.copies.presence(vm, target) is not Presence.ABSENT:
        return THERE
    names = (state.vm_name(vm), state.host_name(source), state.host_name(target))
    state.story.move_start(state.at, *names, Method.COLD.value)
    return None


def end(state: State, vm: int, source: int, target: int) -> Error | None:
    """Carry the definition over, as far as both hosts live to do so; the error that is told."""
    error = _carried(state, vm, source, target)
    names = (state.vm_name(vm), state.host_name(source), state.host_name(target))
    outcome = "failed" if error else "done"
    state.story.move_end(state.at, *names, Method.COLD.value, 0, 0.0, outcome)
    return error


def _carried(state: State, vm: int, source: int, target: int) -> Error | None:
    copies = state.copies
    if copies.presence(vm, source) not in OFF:
        return RUNS
    if not state.answers(target) or copies.presence(vm, target) is not Presence.ABSENT:
        return NO_TARGET
    copies.oddities[vm, target] = Presence.SHUTOFF
    if not state.answers(source):
        return DIED
    copies.forget(vm, source)
    return None
