"""What dancers wear and what stands behind them, with the words captions use for it."""

import colorsys
from pathlib import Path

import numpy as np

from datamodules.aist_names import tables
from musicinfuser.label_files import read_yaml
from small_world.generator.dancer import Looks
from small_world.generator.drawing import Backdrop, BackdropKind, Colour

WORDS = read_yaml(Path(__file__).with_name("wardrobe.yaml"))
PALETTE: dict[str, Colour] = {name: tuple(rgb) for name, rgb in WORDS["palette"].items()}
"""RGB in [0, 1] by name."""
TOPS, BOTTOMS, WALLS = (tuple(map(str, WORDS[name])) for name in ("tops", "bottoms", "walls"))
SKINS: list[Colour] = [tuple(rgb) for rgb in WORDS["skins"]]
HAIR: list[Colour] = [tuple(rgb) for rgb in WORDS["hair"]]
SHOES: Colour = tuple(WORDS["shoes"])
WILD_BACKDROPS: tuple[BackdropKind, ...] = ("plain", "gradient", "checker", "stripes", "stage")
DARK: Colour = (0.05, 0.05, 0.07)
MIN_CONTRAST = 0.45
"""Least RGB distance between shirt, trousers and backdrop."""

HUES = (0.0, 0.04, 0.085, 0.13, 0.20, 0.36, 0.46, 0.52, 0.58, 0.65, 0.75, 0.83, 0.92)
"""Shirts of AIST dancers: steps that look equally large, unlike equal ones, half of them green."""

GOLDEN_SHARE = 0.61803398875


def aist_looks(dancer: str, *, height: float) -> Looks:
    """Looks of a dancer such as ``"d04"``: always the same, told apart by number and gender.

    The height, in frame heights, is an average dancer's; this one's differs a little.
    """
    number = int(dancer[1:])
    hue = HUES[number * 5 % len(HUES)]
    bottom = (0.62 + 0.11 * (number % 4)) % 1.0
    return Looks(
        skin=SKINS[number % 3 if number % 5 else 3],
        hair=HAIR[number % 2],
        top=colorsys.hsv_to_rgb(hue, 0.85, 0.62 + 0.10 * (number // len(HUES))),
        bottom=colorsys.hsv_to_rgb(bottom, 0.35, 0.22 + 0.10 * (number % 3)),
        shoes=SHOES,
        has_long_hair=tables().dancers[dancer] == "female",
        height=height * (0.97 + 0.06 * (number * GOLDEN_SHARE * 7 % 1.0)),
    )


def wild_looks(
    top: str, bottom: str, gender: str, height: float, number: int,
    backdrop: tuple[BackdropKind, str, str],
) -> Looks:  # fmt: skip
    """Looks named by colours of `PALETTE` for shirt and trousers, of a body in frame heights.

    The gender is ``"male"`` or ``"female"``; the number picks skin, which stands out from the
    backdrop, and hair.
    """
    around = _around(backdrop)
    skins = [skin for skin in SKINS if all(_distance(skin, other) > 0.3 for other in around)]
    return Looks(
        skin=skins[number % len(skins)],
        hair=HAIR[number % len(HAIR)],
        top=PALETTE[top],
        bottom=PALETTE[bottom],
        shoes=SHOES,
        has_long_hair=gender == "female",
        height=height,
    )


def studio(floor_y: float) -> Backdrop:
    """The white studio of the AIST recordings."""
    return Backdrop("studio", WORDS["studio_white"], WORDS["studio_floor"], floor_y)


def wild_backdrop(kind: BackdropKind, first: str, second: str, *, floor_y: float) -> Backdrop:
    """A backdrop in named colours; a stage is dark whatever ``second`` says."""
    return Backdrop(kind, PALETTE[first], DARK if kind == "stage" else PALETTE[second], floor_y)


def backdrop_words(kind: BackdropKind, first: str, second: str) -> str:
    """How a caption names a backdrop, such as "in front of a green wall"."""
    a_first = f"{article(first)} {first}"
    return {
        "studio": "in a studio with a white backdrop",
        "plain": f"in front of {a_first} wall",
        "gradient": f"in front of a backdrop fading from {first} to {second}",
        "checker": f"in front of {a_first} and {second} checkered wall",
        "stripes": f"in front of {a_first} and {second} striped wall",
        "stage": f"on a dark stage in {a_first} spotlight",
    }[kind]


def article(word: str) -> str:
    """The indefinite article before a word."""
    return "an" if word[0] in "aeiou" else "a"


def draw_outfit(
    draw: np.random.Generator, backdrop: tuple[BackdropKind, str, str]
) -> tuple[str, str]:
    """Draw the colours of shirt and trousers that stand out from a backdrop and each other."""
    around = _around(backdrop)
    outfits = [
        (top, bottom)
        for top in TOPS
        for bottom in BOTTOMS
        if _distance(PALETTE[top], PALETTE[bottom]) > MIN_CONTRAST
        and all(
            _distance(PALETTE[n], other) > MIN_CONTRAST for n in (top, bottom) for other in around
        )
    ]
    # The shirt first, so that none becomes common because it goes with many trousers.
    top = str(draw.choice(sorted({top for top, _ in outfits})))
    return top, str(draw.choice([bottom for worn, bottom in outfits if worn == top]))


def draw_backdrop(draw: np.random.Generator) -> tuple[BackdropKind, str, str]:
    """Draw kind and two different colours of a backdrop from the wild."""
    kind = WILD_BACKDROPS[int(draw.integers(len(WILD_BACKDROPS)))]
    first, second = (str(name) for name in draw.choice(WALLS, 2, replace=False))
    if kind == "stage" and first == "grey":
        first = "white"
    return kind, first, second


def _around(backdrop: tuple[BackdropKind, str, str]) -> list[Colour]:
    kind, first, second = backdrop
    if kind == "plain":
        return [PALETTE[first]]
    return [PALETTE[first], DARK if kind == "stage" else PALETTE[second]]


def _distance(first: Colour, second: Colour) -> float:
    return float(np.linalg.norm(np.subtract(first, second)))
