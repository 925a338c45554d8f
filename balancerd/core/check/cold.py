"""Cold moves: only VMs that are shut off, off hosts that drain, to where they may and could run."""

from balancerd.core.check.replay import Replay
from balancerd.core.check.rules import check_rules
from balancerd.core.model import ExclusionKind, VMState
from balancerd.core.plan import Move


def check_cold(replay: Replay, move: Move) -> None:
    """What has to hold of a cold move; it is charged to nobody, so room is not asked for."""
    snapshot = replay.snapshot
    vm = snapshot.cluster.vms[move.vm]
    if not replay.policy.methods.cold:
        replay.fault(move.number, "VMs that are shut off stay")
    if vm.state is not VMState.SHUTOFF or not vm.persistent:
        replay.fault(move.number, f"{move.vm} is not shut off, or has no definition to move")
    if move.source not in snapshot.draining:
        replay.fault(move.number, f"nothing asks {move.vm} to leave {move.source}")
    kinds = {exclusion.kind for exclusion in snapshot.exclusions if exclusion.vm == move.vm}
    if kinds - {ExclusionKind.NOT_RUNNING}:
        replay.fault(move.number, f"{move.vm} may not be moved")
    check_rules(replay, move)
