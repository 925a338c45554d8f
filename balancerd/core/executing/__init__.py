"""How a plan is carried out: one action at a time, each a state machine over messages."""
