"""Captions of imagined scenes and what each names, for training the small text encoder to read.

Nothing is filmed: only the words of the small world's captions are drawn, of both its halves.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.aist import AIST_TEMPLATES, aist_caption
from datamodules.aist_names import AISTName, dancers_of, tables
from musicinfuser import keyed_random
from small_world.data.base import PartDataModule
from small_world.generator.wardrobe import BOTTOMS, TOPS, WALLS, WILD_BACKDROPS
from small_world.generator.wild import draw_wild, who_dances

SITUATIONS = ("BM", "FM", "GR", "MM")
GROUP = 3
ONE_COLOUR = ("plain", "stage")
NOT_NAMED = -100
"""The label that `torch.nn.functional.cross_entropy` leaves out."""


def named_classes() -> dict[str, tuple[str, ...]]:
    """What captions of the small world can name: classes by attribute."""
    known = tables()
    return {
        "genre": tuple(known.genres),
        "dancers": ("woman", "man", "two women", "two men", "woman and man", "three"),
        "situation": SITUATIONS,
        "camera": tuple(known.cameras),
        "top": TOPS,
        "bottom": BOTTOMS,
        "place": ("studio", *WILD_BACKDROPS),
        "first_colour": WALLS,
        "second_colour": WALLS,
    }


class CaptionBatch(NamedTuple):
    """Captions and what they name."""

    captions: tuple[str, ...]
    named: Tensor
    """``(B, num_attributes)`` int64: the class of each of `named_classes`, or ``NOT_NAMED``."""


class CaptionDataset(Dataset[tuple[str, Tensor]]):
    """Captions in turn of the studio and of the wild; a caption follows from its index alone."""

    def __init__(self, length: int, *, seed: int) -> None:
        self.length, self.seed = length, seed
        self.classes = named_classes()

    def __len__(self) -> int:
        """Captions to draw."""
        return self.length

    def __getitem__(self, sample_index: int) -> tuple[str, Tensor]:
        """A caption and its labels ``(num_attributes,)``."""
        scene = studio_scene if sample_index % 2 == 0 else wild_scene
        caption, named = scene(sample_index // 2, seed=self.seed)
        labels = [
            classes.index(named[name]) if name in named else NOT_NAMED
            for name, classes in self.classes.items()
        ]
        return caption, torch.tensor(labels)


def studio_scene(index: int, *, seed: int) -> tuple[str, dict[str, str]]:
    """A caption of an AIST recording (Table 8), and what it names by attribute."""
    draw = np.random.default_rng(keyed_random.key(seed, index, "named studio scene"))
    known = tables()
    situation = str(draw.choice(SITUATIONS))
    size = GROUP if situation == "GR" else 1
    name = AISTName(
        genre=str(draw.choice(list(known.genres))),
        situation=situation,
        camera=str(draw.choice(list(known.cameras))),
        dancers=tuple(str(d) for d in draw.choice(list(known.dancers), size, replace=False)),
        music=None,
        choreography=None,
        variation=None,
    )
    assert name.genre is not None
    genders = [known.dancers[dancer] for dancer in dancers_of(name) or ()]
    caption = aist_caption(name, template_index=int(draw.integers(len(AIST_TEMPLATES))))
    return caption, {
        "genre": name.genre,
        "dancers": who_dances(genders),
        "situation": situation,
        "camera": name.camera,
        "place": "studio",
    }


def wild_scene(index: int, *, seed: int) -> tuple[str, dict[str, str]]:
    """A caption of a video from the wild, and what it names by attribute."""
    dance = draw_wild(index, seed)
    kind, first, second = dance.backdrop
    named = {
        "genre": dance.genre,
        "dancers": who_dances(dance.genders),
        "top": dance.top,
        "bottom": dance.bottom,
        "place": kind,
        "first_colour": first,
    }
    return dance.caption, named if kind in ONE_COLOUR else named | {"second_colour": second}


def collate_captions(scenes: list[tuple[str, Tensor]]) -> CaptionBatch:
    """Stack labels."""
    captions, named = zip(*scenes, strict=True)
    return CaptionBatch(tuple(captions), torch.stack(named))


class CaptionDataModule(PartDataModule):
    """Captions drawn as they are needed; those for validation from a seed of their own."""

    def __init__(self, *, batch_size: int, seed: int, num_validation_captions: int = 480) -> None:
        """Set up.

        Args:
            batch_size: Captions per process and batch.
            seed: Seed of the captions.
            num_validation_captions: The same ones at every validation.
        """
        super().__init__(batch_size=batch_size, collate=collate_captions)
        self.seed, self.num_validation_captions = seed, num_validation_captions

    def setup(self, stage: str) -> None:
        """Prepare both sets."""
        super().setup(stage)
        self.training = CaptionDataset(2**62, seed=self.seed)
        held_out = keyed_random.key(self.seed, 0, "captions of validation") >> 1
        self.validation = CaptionDataset(self.num_validation_captions, seed=held_out)
