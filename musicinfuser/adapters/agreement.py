"""Whether an adapter and what it is to run with belong together."""

from typing import Any

from musicinfuser.errors import UserError
from musicinfuser.networks.origin import Origin, hearing_problems


def origin_notes(trained: Origin, now: Origin, *, path: Any, refuse: type[UserError]) -> list[str]:
    """Refuse an adapter of other audio features than it was trained with; say what else differs.

    Args:
        trained: What the adapter was trained with.
        now: What it is to run with.
        path: Its file, for the sentences.
        refuse: The error to raise.

    Returns:
        One sentence for everything else that differs.

    Raises:
        UserError: ``refuse``, with what differs.
    """
    problem, note = hearing_problems(
        trained, now.audio, path=path, remedy="set model.encoders to what it was trained with"
    )
    if problem:
        raise refuse(problem)
    notes = [note] if note else []
    if other := trained.other_weights(now):
        notes.append(
            f"{path} was trained with other frozen weights ({'; '.join(other.values())}); what it "
            "makes of these is not what it was trained to make."
        )
    return notes
