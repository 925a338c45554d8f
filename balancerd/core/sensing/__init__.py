"""From counters to a snapshot: what hosts and VMs ask for, now and in time to come."""
