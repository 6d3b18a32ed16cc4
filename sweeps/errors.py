"""The one error of sweeps that users can mend."""

from musicinfuser.errors import UserError


class SweepError(UserError):
    """A sweep cannot be run as asked. The message is one sentence."""
