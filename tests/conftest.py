"""What holds for all tests."""

from hypothesis import settings

# A busy machine is no fault of the code: examples have no deadline of their own.
settings.register_profile("balancerd", deadline=None)
settings.load_profile("balancerd")
