"""Make a small world: ``python -m small_world.generator OUT --num-aist 24 --num-youtube 12``."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from musicinfuser.errors import UserError, in_one_sentence
from small_world.generator.corpus import make_small_world
from small_world.generator.recipe import SmallWorldRecipe

HELP = {
    "seed": "seed of every draw",
    "num_aist": "training recordings under AIST names",
    "num_held_out": "AIST recordings to held-out music",
    "num_youtube": "videos from the wild with sound",
    "num_silent": "further ones whose sound is silence",
    "num_without_audio": "further ones without a sound stream",
    "with_variations": "also make a showcase and a cypher",
    "basic_beats": "length of basic and group dances",
    "advanced_beats": "length of advanced and moving-camera dances; 64 in AIST",
    "aist_fps": "frame rate under AIST names; about 60 in AIST",
    "youtube_seconds": "average length of a video from the wild",
    "height": "rows, and shorter side of videos from the wild",
    "audio_rate_hz": "sample rate of all sound",
    "audio_channels": "1 or 2",
}


def main(args: Sequence[str] | None = None) -> int:
    """Read the command line and make the world; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.generator",
        description="Make synthetic dance videos with music, with beats and joints known.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    for field in dataclasses.fields(SmallWorldRecipe):
        flags = [f"--{field.name.replace('_', '-')}"]
        if field.name == "num_held_out":
            flags.append("--held-out")
        if isinstance(field.default, bool):
            parser.add_argument(*flags, action="store_true", help=HELP[field.name])
        else:
            kind = type(field.default)
            parser.add_argument(*flags, type=kind, default=field.default, help=HELP[field.name])
    parser.add_argument("--num-workers", type=int, default=0, help="processes; 0 works in this one")
    options = vars(parser.parse_args(args))
    out, num_workers = options.pop("out"), options.pop("num_workers")
    try:
        make_small_world(out, num_workers=num_workers, **options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with in_one_sentence("small_world"):
        sys.exit(main())
