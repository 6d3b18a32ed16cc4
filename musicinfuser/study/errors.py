"""The one error of the study."""


class StudyError(ValueError):
    """A study cannot be built or analysed as asked. The message is one sentence."""
