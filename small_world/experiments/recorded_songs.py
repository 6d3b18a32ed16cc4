"""A test set of recorded music with known beats, which nothing was trained on.

    python -m small_world.experiments.recorded_songs MUSIC OUT

``MUSIC`` is a folder in which Debian's packages of games are unpacked; recorded_songs.csv names
packages, files and beats (`small_world.generator.songs`), which a straight line fits within 12 ms
over 24 s. ``OUT`` then holds what test_set writes, without ground truth: ``music/``, ``truth/``,
and the lists ``own.csv``, ``other.csv`` and ``nothing.csv``.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dance_eval.tables import csv_table
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import in_one_sentence
from musicinfuser.generation_requests import NO_AUDIO
from musicinfuser.media.audio import read_audio, write_wav
from musicinfuser.tables import Row
from small_world.generator.songs import read_song_list

LIST = Path(__file__).with_name("recorded_songs.csv")
RATE_HZ = 44_100
EXCERPTS_OF_A_SONG = 2
APART_SECONDS = 8.0
BEFORE_SECONDS, EXCERPT_SECONDS = 6.0, 14.5
"""A clip starts so long after its excerpt: audio encoders may be given the context."""
PROMPT = "a professional dancer dancing in a studio with a white backdrop"


def make_test_set(music: Path, out: Path) -> None:
    """Cut the excerpts; files that exist are written again.

    Raises:
        UserError: A song is not there.
    """
    songs = read_song_list(LIST, music)
    requests: dict[str, list[Row]] = {"own": [], "other": [], "nothing": []}
    names: list[str] = []
    for song in tqdm(songs, "Cutting songs"):
        for number in range(EXCERPTS_OF_A_SONG):
            start = song.start_seconds + number * APART_SECONDS - BEFORE_SECONDS
            name = f"{len(names):02d}_{song.path.stem}_{number}"
            sound = read_audio(
                song.path, rate_hz=RATE_HZ, start_seconds=start, duration_seconds=EXCERPT_SECONDS
            )
            write_wav(out / "music" / f"{name}.wav", sound, rate_hz=RATE_HZ)
            beats = song.beats_seconds(start, EXCERPT_SECONDS).round(4).tolist()
            truth = {"beats_seconds": beats, "bpm": song.bpm, "music": song.path.stem}
            write_text(out / "truth" / f"{name}.json", json.dumps(truth) + "\n")
            names.append(name)
    tempi = np.repeat([song.bpm for song in songs], EXCERPTS_OF_A_SONG)
    order = np.argsort(tempi, kind="stable")
    # In order of tempo the song half a set further on, so that tempi are far apart.
    other = dict(zip(order, np.roll(order, -len(order) // 2), strict=True))
    for seed, name in enumerate(names):
        request: dict[str, str | int | float] = {
            "track": f"music/{name}.wav",
            "track_offset_seconds": BEFORE_SECONDS,
            "prompt": PROMPT,
            "seed": seed,
        }
        requests["own"].append(request)
        requests["other"].append(request | {"heard": f"music/{names[other[seed]]}.wav"})
        requests["nothing"].append(request | {"heard": NO_AUDIO})
    for kind, rows in requests.items():
        write_text(out / f"{kind}.csv", csv_table(rows))


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line and make the test set."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.experiments.recorded_songs",
        description="Cut a test set of recorded music with known beats.",
    )
    parser.add_argument("music", type=Path, metavar="MUSIC", help="folder with the packages' files")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    options = parser.parse_args(args)
    make_test_set(options.music, options.out)


if __name__ == "__main__":
    with in_one_sentence("recorded_songs"):
        main()
