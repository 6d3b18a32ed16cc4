"""The one error of the study."""

from musicinfuser.errors import UserError


class StudyError(UserError):
    """A study cannot be built or analysed as asked. The message is one sentence."""
