"""Options that several verbs have."""

import functools
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveFloat, PositiveInt

from dance_eval.metrics.music_beats import BEAT_RATE_HZ, MusicBeats
from musicinfuser.media.audio import read_audio

MAX_CLIPS, MAX_HEIGHT = 12, 480  # unless told otherwise


def add_decoding_options(parser: ArgumentParser) -> None:
    """Where music beats come from, and how large frames are."""
    parser.add_argument(
        "--max_height",
        type=PositiveInt,
        default=MAX_HEIGHT,
        help="Taller frames are scaled down to it, in px.",
    )
    parser.add_argument(
        "--music_beats",
        type=Literal["tracked", "truth"],
        default="tracked",
        help="Track beats with librosa, or read <track stem>.json.",
    )
    parser.add_argument(
        "--beats_folder", type=Path | None, default=None, help="Where <track stem>.json lies."
    )
    parser.add_argument("--start_bpm", type=PositiveFloat, default=120.0, help="For tracked beats.")
    parser.add_argument(
        "--known_tempo",
        type=bool,
        default=True,
        help="Track beats near the tempo that a list (column bpm) or an AIST name says.",
    )
    parser.add_argument("--tightness", type=PositiveFloat, default=100.0, help="For tracked beats.")


def drawing_options(settings: Namespace) -> dict[str, Any]:
    """What all that is drawn of clips takes, by the options of `add_decoding_options`."""
    return {"beats": music_beats(settings), "max_height": settings.max_height}


def music_beats(settings: Namespace) -> MusicBeats:
    """Where beats come from, by the options of `add_decoding_options`."""
    return MusicBeats(
        functools.partial(read_audio, rate_hz=BEAT_RATE_HZ),
        mode=settings.music_beats,
        folder=settings.beats_folder,
        start_bpm=settings.start_bpm,
        tightness=settings.tightness,
        use_known_tempo=settings.known_tempo,
    )
