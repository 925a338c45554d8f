"""What holds for all tests."""

import os
import signal

from hypothesis import settings

# A busy machine is no fault of the code: examples have no deadline of their own. What lands is
# judged on the same examples each time; everybody else's runs go on looking for new ones.
settings.register_profile("balancerd", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("balancerd")

# A shell that starts the tests in the background has them, and all their children, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
