"""Guards in the adapter of libvirt: the last look before the leap."""

from tests.mutants.mutant import Mutant

STATES, ORDERS = "tests/unit/test_libvirt_states.py", "tests/unit/test_libvirt_orders.py"
OBSERVE = "tests/unit/test_libvirt_observe.py"

HYPERVISOR = (
    Mutant(
        "a state that is not known",
        "adapters/libvirt/states.py",
        "((ANY, ANY, ANY), Presence.UNREACHABLE)",
        "((ANY, ANY, ANY), Presence.ABSENT)",
        STATES,
        protects="nothing is concluded from what a later libvirt may say",
    ),
    Mutant(
        "a living job covers both halves",
        "adapters/libvirt/states.py",
        "    ((PAUSED, ANY, Job.OUTGOING), Presence.RUNNING_WITH_JOB),\n",
        "",
        STATES,
        protects="the halves of a healthy migration are not mistaken for leftovers",
    ),
    Mutant(
        "a half that is going to be fed",
        "adapters/libvirt/states.py",
        "    ((PAUSED, ANY, Job.INCOMING), Presence.INCOMING),\n",
        "",
        STATES,
        protects="an incoming half is not mistaken for a VM that stands still",
    ),
    Mutant(
        "a VM is known by its UUID",
        "adapters/libvirt/locate.py",
        "        if uuid:\n",
        "        if False:\n",
        OBSERVE,
        protects="a namesake is neither found nor touched in a VM's place",
    ),
    Mutant(
        "acts need an identity",
        "adapters/libvirt/backend.py",
        "if identified and not uuid:",
        "if False:",
        ORDERS,
        protects="no copy is touched of which it is not established whose it is",
    ),
    Mutant(
        "an act that was given up",
        "adapters/libvirt/backend.py",
        "if time.monotonic() > ordered + ASK_SECONDS:",
        "if False:",
        ORDERS,
        protects="no copy is touched by an order that whoever gave it takes for undone",
    ),
    Mutant(
        "only what is not active is undefined",
        "adapters/libvirt/acts.py",
        "if domain.isActive() or found not in _NOT_ACTIVE:",
        "if False:",
        ORDERS,
        protects="a VM that runs keeps its definition",
    ),
    Mutant(
        "only a migration is aborted",
        "adapters/libvirt/acts.py",
        "    job = read_job(domain)[0]\n    if job is not Job.OUTGOING:\n",
        "    job = read_job(domain)[0]\n    if False:\n",
        ORDERS,
        protects="a backup or a dump that somebody makes is not ended",
    ),
    Mutant(
        "an order that has grown old",
        "adapters/libvirt/migration.py",
        "if age > START_SECONDS:",
        "if False:",
        ORDERS,
        protects="a host that hung does not begin what was decided for another hour",
    ),
    Mutant(
        "a VM that runs is not carried cold",
        "adapters/libvirt/migration.py",
        "if self.order.method is Method.COLD and domain.isActive():",
        "if False:",
        ORDERS,
        protects="a VM that was started meanwhile keeps its definition",
    ),
    Mutant(
        "a QEMU that stands still is not waited for",
        "adapters/libvirt/observe.py",
        "    if is_stuck(domain):\n",
        "    if False:\n",
        OBSERVE,
        protects="a VM that hangs does not make its whole host one that is not known",
    ),
    Mutant(
        "no answer is no absence",
        "adapters/libvirt/backend.py",
        "    except Exception:  # noqa: BLE001  whatever a host says, it is an answer\n"
        "        return Presence.UNREACHABLE\n",
        "    except Exception:  # noqa: BLE001  whatever a host says, it is an answer\n"
        "        return Presence.ABSENT\n",
        OBSERVE,
        protects="a host whose answer failed is not taken for one without the VM",
    ),
    Mutant(
        "calls that hang are counted",
        "adapters/libvirt/workers.py",
        "if count >= self._cap:",
        "if False:",
        "tests/unit/test_libvirt_workers.py",
        protects="a host that hangs does not eat up threads without end",
    ),
    Mutant(
        "one call at a time",
        "adapters/libvirt/lane.py",
        "            if age < limit:\n",
        "            if False:\n",
        "tests/unit/test_libvirt_lane.py",
        protects="no two threads share a connection that may die under them",
    ),
)
