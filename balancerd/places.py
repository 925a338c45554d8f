"""Where things are, unless somebody says otherwise."""

from pathlib import Path

CONFIGURATION = Path("/etc/balancerd/balancerd.toml")
STATE = Path("/var/lib/balancerd")
_PACKAGE = Path(__file__).parent
# In a wheel the policies are part of the package; in a source tree they stand beside it.
SHIPPED_POLICIES = (
    _PACKAGE / "share" / "policies"
    if (_PACKAGE / "share").is_dir()
    else _PACKAGE.parent / "policies"
)
