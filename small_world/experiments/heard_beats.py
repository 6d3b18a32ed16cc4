"""Does the head of an audio encoder hear the beats of recorded songs? Without any dance.

    python -m small_world.experiments.heard_beats MUSIC --songs training --speeds 1

``MUSIC`` is a folder in which Debian's packages of games are unpacked. Two stretches of 73 frames
of each song, with the sound around them that the small world's config gives; beats are those of
`follow_beats`, and their mean alignment with the known ones is that of a dancer who rests on each.
``--songs test`` takes those of recorded_songs.csv.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dance_eval.metrics.beat_alignment import beat_alignment
from dance_eval.metrics.intervals import bootstrap_mean
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.media.audio import read_audio
from musicinfuser.networks.audio_encoder import BEATS
from musicinfuser.networks.beat_positions import SPEEDS, follow_beats
from musicinfuser.networks.transformers_audio import TransformersAudio
from small_world.experiments.recorded_songs import (
    APART_SECONDS,
    BEFORE_SECONDS,
    EXCERPT_SECONDS,
    EXCERPTS_OF_A_SONG,
    LIST,
)
from small_world.generator.songs import TRAINING_SONGS, Song, read_song_list

LISTS = {"training": TRAINING_SONGS, "test": LIST}
CLIP_SECONDS, CONTEXT_SECONDS = 73 / 30, 4.0


def beats_of(positions: Tensor, times: Tensor) -> Tensor:
    """When a beat begins, in seconds.

    Args:
        positions: ``(S, 2)`` or more columns: cosine and sine of the position in the beat first;
            zero where there is none to follow.
        times: ``(S,)``: the seconds of each.
    """
    turns = np.unwrap(torch.atan2(positions[:, 1], positions[:, 0]).double()) / (2 * np.pi)
    begun = np.flatnonzero(np.diff(np.floor(turns + 1e-6)) > 0)
    is_followed = positions[:, :2].any(dim=1).numpy()
    begun = begun[is_followed[begun] & is_followed[begun + 1]]
    share = (np.floor(turns[begun + 1] + 1e-6) - turns[begun]) / (turns[begun + 1] - turns[begun])
    at = times.double().numpy()
    return torch.from_numpy(at[begun] + share.clip(0, 1) * (at[begun + 1] - at[begun]))


def alignments(song: Song, encoder: TransformersAudio, speeds: Sequence[float]) -> list[float]:
    """Of each stretch that the part of a song has room for."""
    found = []
    for number in range(EXCERPTS_OF_A_SONG):
        start = song.start_seconds + number * APART_SECONDS
        if song.seconds and start + EXCERPT_SECONDS > song.start_seconds + song.seconds:
            continue
        before = BEFORE_SECONDS - CONTEXT_SECONDS
        sound = read_audio(
            song.path, rate_hz=encoder.rate_hz, start_seconds=start + before,
            duration_seconds=CLIP_SECONDS + 2 * CONTEXT_SECONDS,
        )  # fmt: skip
        device = torch.device("cpu")
        with torch.inference_mode():
            points = encoder.beat_points(sound[None], device=device, speeds=speeds)
        hop = encoder.hop / encoder.rate_hz
        times = before + encoder.window / encoder.rate_hz / 2 + hop * torch.arange(points.shape[1])
        heard = beats_of(follow_beats(points, hop)[0], times)
        ends = heard - BEFORE_SECONDS
        heard = heard[(ends >= 0) & (ends < CLIP_SECONDS)]
        known = torch.from_numpy(song.beats_seconds(start, EXCERPT_SECONDS))
        found.append(float(beat_alignment(heard, known)))
    return found


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line and print a line per choice of speeds."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.experiments.heard_beats",
        description="How well the head of an audio encoder hears the beats of recorded songs.",
    )
    parser.add_argument("music", type=Path, metavar="MUSIC", help="folder with the packages' files")
    parser.add_argument("--songs", choices=LISTS, default="training", help="which list")
    parser.add_argument("--encoder", default="assets/small-mochi", help="folder with audio_encoder")
    parser.add_argument("--speeds", type=float, nargs="+", default=SPEEDS, help="of the music")
    options = parser.parse_args(args)
    if any(not 0.5 <= speed <= 2 for speed in options.speeds):
        raise UserError("--speeds are between 0.5 and 2; 1 is the music's own.")
    encoder = TransformersAudio(options.encoder, "audio_encoder", layer=BEATS)
    songs = read_song_list(LISTS[options.songs], options.music)
    found = [
        value
        for song in tqdm(songs, "Hearing songs")
        for value in alignments(song, encoder, options.speeds)
    ]
    mean = bootstrap_mean(found, seed=0, name="heard beats")
    speeds = ", ".join(f"{speed:g}" for speed in options.speeds)
    print(f"{options.songs} songs at {speeds}: {mean.text()}, n = {mean.num_values}")


if __name__ == "__main__":
    with in_one_sentence("heard_beats"):
        main()
