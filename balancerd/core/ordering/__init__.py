"""In which order, and when, the moves of a plan are made."""
