"""Make a small world: ``python -m small_world.generator OUT --num-aist 24 --num-youtube 12``."""

from collections.abc import Sequence

from musicinfuser.errors import in_one_sentence
from small_world.generator.corpus import make_small_world
from small_world.generator.recipe import SmallWorldRecipe, parser_of


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line and make the world."""
    said = "Make synthetic dance videos with music, with beats and joints known."
    parser = parser_of("generator", said, SmallWorldRecipe)
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    parser.add_argument("--num-workers", type=int, default=0, help="processes; 0 works in this one")
    options = vars(parser.parse_args(args))
    make_small_world(options.pop("out"), **options)


if __name__ == "__main__":
    with in_one_sentence("small_world", goes_on=True):
        main()
