"""What is seen of the site: look by look one snapshot, and in the record what came of it.

A ledger or samples that cannot be written do not blind: the snapshot is there all the same, and
`frozen` says that nothing may be done with it.
"""

import logging
from collections.abc import Callable, Mapping, Set
from itertools import takewhile

from balancerd.believed import ANOTHERS, BelievedPower
from balancerd.core.model import Host, Link, PowerState, Snapshot
from balancerd.core.observation import Observation
from balancerd.core.outcome import NEVER_BEGUN
from balancerd.core.past.history import History
from balancerd.core.past.vetoes import DEED, deeds
from balancerd.core.plain import as_dict
from balancerd.core.policies.tables import Detection
from balancerd.core.sensing.forecast import MEMORY, Pasts, taking_in
from balancerd.core.sensing.measurement import Known
from balancerd.core.sensing.profile import PROFILED, Profile, recalled
from balancerd.core.sensing.snapshot import assemble, freeze_reason
from balancerd.ports import Backend, Ledger, LedgerError, Samples
from balancerd.recorder import Recorder
from balancerd.troubles import Troubles

log = logging.getLogger("balancerd")


class Watch:
    """The newest snapshot and history, each replaced by every `look`."""

    def __init__(
        self,
        backend: Backend,
        power: BelievedPower,
        recorder: Recorder,
        samples: Samples,
        links: tuple[Link, ...],
    ) -> None:
        self._backend = backend
        self._power = power
        self._recorder = recorder
        self._samples = samples
        self._links = links
        self._known = Known()
        self._seen: Snapshot | None = None
        self._troubles = Troubles()  # of the site
        self._samples_trouble = Troubles()
        self.history = History()

    @property
    def begun(self) -> bool:
        """Whether there was a look yet; before it there is no snapshot."""
        return self._seen is not None

    @property
    def snapshot(self) -> Snapshot:
        """The site as last seen."""
        assert self._seen is not None
        return self._seen

    def recall(self, now: float) -> None:
        """Take up what an earlier balancerd saw, before the first look. Raises LedgerError."""
        hosts = self._ledger.known_hosts()
        self._known = Known(hosts=hosts, pasts=self._pasts(now), profile=self._profile(now))

    def look(
        self,
        detection: Detection,
        ours: Callable[[], Set[str]],
        meanwhile: Callable[[], None],
        *,
        sampled: bool = True,
    ) -> None:
        """Observe and record; the loads only if `sampled`. `ours` are the VMs that we move: what
        becomes of them, we did. While hosts are waited for, `meanwhile` goes on with what was seen
        before."""
        before, snapshot = self._seen, self._observe(detection, meanwhile)
        self._note_power(before.cluster.hosts if before else {}, snapshot)
        self._note_troubles(snapshot)
        self._seen = snapshot
        self._record(before, ours())
        if sampled:
            self._sample()

    def fresh(self, detection: Detection, now: float) -> bool:
        """Whether what was seen is recent enough to act on."""
        return now - self.snapshot.at <= detection.stale_after

    def frozen(self, detection: Detection) -> str:
        """Why nothing may be begun; "" where it may."""
        if self._recorder.broken:
            return f"the ledger is broken: {self._recorder.broken}"
        return freeze_reason(self.snapshot, detection)

    @property
    def _ledger(self) -> Ledger:
        return self._recorder.ledger

    # Recalling

    def _pasts(self, now: float) -> Pasts:
        """What the samples tell of each VM's demand, so that a restart forgets none of it."""
        pasts = Pasts.of({})
        try:
            for at, cpu in self._samples.recent(now, MEMORY):
                pasts = taking_in(pasts, at, cpu)
        except LedgerError as error:
            log.warning("samples: %s", error)
        return pasts

    def _profile(self, now: float) -> Profile:
        """What the samples tell of the hours of the day and the week."""
        try:
            return recalled(self._samples.hours(now, PROFILED))
        except LedgerError as error:
            log.warning("samples: %s", error)
            return Profile.none()

    # Observing

    def _observe(self, detection: Detection, meanwhile: Callable[[], None]) -> Snapshot:
        observation = self._backend.observe(meanwhile)
        self._power.compare(r.host for r in observation.readings if not r.error)
        draining = self._recorder.keep(self._ledger.draining)
        if draining is None:
            draining = self._seen.draining if self._seen else frozenset()
        snapshot, self._known = assemble(
            observation,
            self._known,
            self._power_states(observation),
            detection,
            self._links,
            draining,
            self._power.doubted,
        )
        return snapshot

    def _power_states(self, observation: Observation) -> dict[str, PowerState]:
        """The power of hosts that did not answer."""
        silent = [reading.host for reading in observation.readings if reading.error]
        return dict(self._power.states(silent)) if silent else {}

    # Recording

    def _note_power(self, before: Mapping[str, Host], snapshot: Snapshot) -> None:
        """Record every change of a host's power that is seen, the first sight included."""
        hosts = snapshot.cluster.hosts
        if hosts is before:
            return
        both = zip(hosts.items(), map(as_dict(before).get, hosts), strict=True)
        for name in [name for (name, host), known in both if known is not host]:
            old, host = before.get(name), hosts[name]
            if host.power is not PowerState.UNKNOWN and (old is None or old.power != host.power):
                self._recorder.keep(self._ledger.record_power, name, host.power, snapshot.at)

    def _note_troubles(self, snapshot: Snapshot) -> None:
        """Put gaps of hosts, drivers that are not believed and split brains into the audit, as they
        begin and as they end."""
        troubles = {f"{g.name}: {g.kind}": g.detail for g in snapshot.gaps if g.subject == "host"}
        for name in sorted(self._power.doubted):
            troubles[f"{name}: power driver"] = ANOTHERS
        for split in snapshot.split_brains:
            troubles[f"{split.vm} runs on {' and '.join(split.hosts)}"] = split.uuid
        for what, detail in self._troubles.all(troubles).items():
            kind = "trouble" if what in troubles else "trouble over"
            self._recorder.event(snapshot.at, kind, what, detail)

    def _record(self, before: Snapshot | None, ours: Set[str]) -> None:
        snapshot, keep = self.snapshot, self._recorder.keep
        keep(self._ledger.record_inventory, snapshot)
        history = keep(self._ledger.history, snapshot.at)
        if history is not None:
            self.history = history
            if before is not None:
                self._note_deeds(before, snapshot, ours)

    def _sample(self) -> None:
        snapshot = self.snapshot
        try:
            self._samples.append(snapshot.at, snapshot.host_loads, snapshot.loads)
            trouble = ""
        except LedgerError as error:
            trouble = str(error)
        self._samples_trouble.note("samples", trouble)

    def _note_deeds(self, before: Snapshot, snapshot: Snapshot, ours: Set[str]) -> None:
        """Put what others did to VMs into the audit, from where it is a veto for a while."""
        newest = takewhile(lambda move: move.at >= before.at, reversed(self.history.moves))
        own = {move.vm for move in newest if move.outcome not in NEVER_BEGUN}
        found = deeds(before, snapshot, own | ours)
        for deed in found:
            log.warning("somebody %s: %s", deed.what, deed.vm)
            self._recorder.event(deed.at, DEED, deed.vm, deed.what)
        if found:
            self.history = self._recorder.keep(self._ledger.history, snapshot.at) or self.history
