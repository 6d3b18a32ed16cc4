"""What a small world is made from."""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from docstring_parser import parse

from musicinfuser import keyed_random
from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_number
from small_world.generator.band import play_piece
from small_world.generator.music import NUM_BEATS, Piece, compose
from small_world.generator.songs import song_piece
from small_world.generator.sound_changes import change_sound

MIN_BEATS, MAX_BEATS = 2, NUM_BEATS - 4
MIN_HEIGHT_PX = 32
MAX_YOUTUBE_SECONDS = 20.0


@dataclass(frozen=True)
class SmallWorldRecipe:
    """Everything that decides the files of a small world.

    Attributes:
        seed: Seed of every draw.
        num_aist: Training recordings under AIST names, over all ten genres; most are solos seen
            from the front, some groups, some by the moving camera, some from other sides.
        num_held_out: Further AIST recordings (solo, front) to the ten held-out pieces of Table 7.
        num_youtube: Videos from the wild with sound.
        num_silent: Further videos from the wild whose sound is silence.
        num_without_audio: Further videos from the wild without a sound stream.
        with_variations: Also make a showcase and a cypher, whose names state no genre.
        basic_beats: Length of a basic or group dance in beats; 16 in AIST.
        advanced_beats: Length of an advanced or moving-camera dance in beats; 64 in AIST.
        aist_fps: Frame rate under AIST names; about 60 in AIST.
        youtube_seconds: Average length of a video from the wild.
        height: Rows of AIST recordings and shorter side of videos from the wild, even; the width is
            16:9.
        audio_rate_hz: Sample rate of all sound.
        audio_channels: 1 or 2.
        soundfont: A General MIDI soundfont, sf2 or sf3: sampled instruments play the music; of
            several, separated by commas, each piece takes one. Empty: it is synthesised.
        songs: A folder with the packages of training_songs.csv: recorded songs are the music, each
            at the speed that gives it the tempo of the dance.
        changed_sound: The sound of each piece is changed as recordings change it: rooms, tone,
            level, noise.
    """

    seed: int = 0
    num_aist: int = 24
    num_held_out: int = 10
    num_youtube: int = 12
    num_silent: int = 1
    num_without_audio: int = 1
    with_variations: bool = False
    basic_beats: int = 16
    advanced_beats: int = 32
    aist_fps: float = 30.0
    youtube_seconds: float = 6.0
    height: int = 108
    audio_rate_hz: int = 24000
    audio_channels: int = 1
    soundfont: str = ""
    songs: str = ""
    changed_sound: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that are out of their range."""
        counts = ("num_aist", "num_held_out", "num_youtube", "num_silent", "num_without_audio")
        limits: dict[str, Any] = {
            **dict.fromkeys(counts, {"at_least": 0}),
            "basic_beats": {"at_least": MIN_BEATS, "at_most": MAX_BEATS},
            "advanced_beats": {"at_least": MIN_BEATS, "at_most": MAX_BEATS},
            "height": {"at_least": MIN_HEIGHT_PX},
            "youtube_seconds": {"at_least": 1, "at_most": MAX_YOUTUBE_SECONDS},
            "audio_channels": {"at_least": 1, "at_most": 2},
            "aist_fps": {"at_least": 1},
            "audio_rate_hz": {"at_least": 8000},
        }
        for name, own in limits.items():
            check_number(name, getattr(self, name), **own)
        if self.songs and self.soundfont:
            raise UserError("songs and soundfont are both given; the music is of one of them.")
        if self.height % 2:
            raise UserError(f"height is {self.height}; give an even number of rows.")

    def compose(self, name: str, *, genre: str, bpm: float) -> Piece:
        """A piece of this world's music."""
        make: Callable[..., Piece] = compose
        rate_hz = self.audio_rate_hz
        if self.soundfont:
            draw = np.random.default_rng(keyed_random.key(self.seed, name, "soundfont"))
            soundfont = str(draw.choice(self.soundfont.split(",")))
            make = functools.partial(play_piece, soundfont=soundfont)
        if self.songs:
            make = functools.partial(song_piece, music=self.songs)
        piece = make(
            name, genre=genre, bpm=bpm, seed=self.seed, rate_hz=rate_hz,
            num_channels=self.audio_channels,
        )  # fmt: skip
        if not self.changed_sound:
            return piece
        draw = np.random.default_rng(keyed_random.key(self.seed, name, "changes of sound"))
        changed = change_sound(piece.waveform.mean(axis=0), rate_hz, draw)
        return dataclasses.replace(piece, waveform=np.stack([changed] * self.audio_channels))


def even(length: float) -> int:
    """The nearest even number, as video encoders want it."""
    return 2 * round(length / 2)


def parser_of(module: str, description: str, kind: type) -> argparse.ArgumentParser:
    """A parser with an option for each field of a dataclass, with the help of its docstring."""
    parser = argparse.ArgumentParser(
        prog=f"python -m small_world.{module}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    described = {p.arg_name: p.description or "" for p in parse(kind.__doc__ or "").params}
    for field in fields(kind):
        # As it was called first.
        short = ["--held-out"] if field.name == "num_held_out" else []
        flags = [f"--{field.name.replace('_', '-')}", *short]
        text = described[field.name].replace("%", "%%")
        if isinstance(field.default, bool):
            parser.add_argument(*flags, action="store_true", help=text)
        else:
            parser.add_argument(*flags, type=type(field.default), default=field.default, help=text)
    return parser
