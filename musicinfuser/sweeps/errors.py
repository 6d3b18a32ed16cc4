"""The one error of sweeps that users can mend."""


class SweepError(ValueError):
    """A sweep cannot be run as asked. The message is one sentence."""
