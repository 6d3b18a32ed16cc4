"""Recordings like downloads from YouTube: any place, outfit, tempo, size and camera."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from datamodules.aist_names import tables
from musicinfuser import keyed_random
from small_world.generator.drawing import BackdropKind
from small_world.generator.moves import draw_manner
from small_world.generator.music import NUM_BEATS
from small_world.generator.recipe import SmallWorldRecipe, even
from small_world.generator.recordings import (
    Recording,
    record,
    shaking_camera,
    still_camera,
)
from small_world.generator.wardrobe import (
    WORDS,
    article,
    backdrop_words,
    draw_backdrop,
    draw_outfit,
    wild_backdrop,
    wild_looks,
)

Sound = Literal["music", "silence", "none"]

SHAPES = ((16, 9), (16, 9), (9, 16), (4, 3), (1, 1))
"""Width to height, in turn."""

FRAME_RATES = (30.0, 25.0, 30.0, 30000 / 1001)
SAFE_ASPECT = 3 / 4
"""Dancers stay within the largest box of this shape, so that a centre crop keeps them whole."""

SHAKE = (0.0, 0.008, 0.016)
TITLES, CAPTIONS = WORDS["titles"], WORDS["captions"]
SPELLED = {"woman": "a woman", "man": "a man", "woman and man": "a man and a woman"}


def who_dances(genders: Sequence[str]) -> str:
    """One of "woman", "man", "two women", "two men", "woman and man" and "three"."""
    if len(genders) > 2:
        return "three"
    is_one, first = len(genders) == 1, genders[0]
    if len(set(genders)) == 2:
        return "woman and man"
    if first == "female":
        return "woman" if is_one else "two women"
    return "man" if is_one else "two men"


@dataclass(frozen=True)
class WildItem:
    """A video to make: its number in the world and its sound."""

    index: int
    sound: Sound


@dataclass(frozen=True)
class WildDance:
    """What is to be seen in a video; colours are names."""

    genre: str
    bpm: float
    """Never one of AIST's."""
    genders: tuple[str, ...]
    """``"male"`` or ``"female"`` per dancer; one or two."""
    top: str
    bottom: str
    backdrop: tuple[BackdropKind, str, str]
    """Kind and two colours."""
    template: int
    """Which caption template."""
    title: str
    """File name without its ending."""
    number: int
    """Picks skin, hair, shape, frame rate and shake."""

    @property
    def caption(self) -> str:
        """A sentence that names dancers, outfit, genre and place."""
        who = who_dances(self.genders)
        several = len(self.genders) > 1
        return CAPTIONS[self.template].format(
            who=SPELLED.get(who, who),
            dance="dance" if several else "dances",
            genre=tables().genres[self.genre],
            top=f"{self.top} shirts" if several else f"{article(self.top)} {self.top} shirt",
            bottom=f"{self.bottom} trousers",
            where=backdrop_words(*self.backdrop),
        )


def plan_wild(recipe: SmallWorldRecipe) -> list[WildItem]:
    """All videos from the wild, those with music first."""
    counts: tuple[tuple[Sound, int], ...] = (
        ("music", recipe.num_youtube),
        ("silence", recipe.num_silent),
        ("none", recipe.num_without_audio),
    )
    sounds = [sound for sound, count in counts for _ in range(count)]
    return [WildItem(index, sound) for index, sound in enumerate(sounds)]


def draw_wild(index: int, seed: int) -> WildDance:
    """Draw what is to be seen in a video."""
    key = keyed_random.key(seed, index, "small world wild")
    draw = np.random.default_rng(key)
    genre = list(tables().genres)[index % len(tables().genres)]
    backdrop = draw_backdrop(draw)
    top, bottom = draw_outfit(draw, backdrop)
    number_of_dancers = 2 if draw.random() < 0.25 else 1
    genders = tuple(str(g) for g in draw.choice(["female", "male"], number_of_dancers))
    title = str(draw.choice(TITLES)).format(
        genre=tables().genres[genre], day=int(draw.integers(2, 90))
    )
    code = base64.urlsafe_b64encode(key.to_bytes(8, "little")).decode().rstrip("=")
    return WildDance(
        genre=genre,
        bpm=_draw_tempo(draw),
        genders=genders,
        top=top,
        bottom=bottom,
        backdrop=backdrop,
        template=int(draw.integers(len(CAPTIONS))),
        title=f"{title} [{code}]",
        number=index,
    )


def record_wild(item: WildItem, recipe: SmallWorldRecipe, *, tempo: float = 1) -> Recording:
    """Make a video with its caption.

    With ``tempo`` as many seconds of the same dancer and place, to music at so many times its own.
    """
    dance = draw_wild(item.index, recipe.seed)
    draw = np.random.default_rng(keyed_random.key(recipe.seed, item.index, "small world take"))
    piece = recipe.compose(f"wild {item.index}", genre=dance.genre, bpm=tempo * dance.bpm)
    # Counts on once more per round of the genres, so that no genre is bound to one shape.
    turn = dance.number + dance.number // len(tables().genres)
    shape, fps = SHAPES[turn % len(SHAPES)], FRAME_RATES[turn % len(FRAME_RATES)]
    width, height = (even(side * (recipe.height / min(shape))) for side in shape)
    num_frames = round(recipe.youtube_seconds * float(draw.uniform(0.8, 1.2)) * fps)
    num_beats = num_frames / fps / piece.beat_seconds
    shake = SHAKE[dance.number % len(SHAKE)]
    box = min(1.0, width / height / SAFE_ASPECT)
    floor_y = 0.43 * box
    recording = record(
        piece,
        draw,
        start_beat=float(draw.uniform(0, max(0.0, NUM_BEATS - num_beats))),
        num_frames=num_frames,
        fps=fps,
        manner=draw_manner(draw, is_advanced=bool(draw.random() < 0.3)),
        dancers=[
            wild_looks(
                dance.top, dance.bottom, gender, 0.76 * box, dance.number + i, dance.backdrop
            )
            for i, gender in enumerate(dance.genders)
        ],
        backdrop=wild_backdrop(*dance.backdrop, floor_y=floor_y - 0.09),
        camera=shaking_camera(num_frames, fps=fps, size=shake, draw=draw)
        if shake
        else still_camera(num_frames),
        yaw_degrees=float(draw.choice([0, 0, 0, 20, -20])),
        floor_y=floor_y,
        height=height,
        width=width,
    )
    recording.truth.update(
        source="youtube", sound=item.sound, genders=list(dance.genders), top=dance.top,
        bottom=dance.bottom, backdrop=list(dance.backdrop), caption=dance.caption,
    )  # fmt: skip
    audio = None if item.sound == "none" else recording.audio
    if item.sound == "silence" and audio is not None:
        audio = np.zeros_like(audio)
    return replace(recording, audio=audio)


def _draw_tempo(draw: np.random.Generator) -> float:
    while True:
        bpm = round(float(draw.uniform(76, 144)), 1)
        if bpm not in tables().music_bpm.values():
            return bpm
