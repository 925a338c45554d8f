"""Values as text: plans, snapshots and cluster files, written and read back."""
