"""Recordings like downloads from YouTube: any place, outfit, tempo, size and camera."""

import base64
from dataclasses import dataclass
from typing import Literal

import numpy as np

from datamodules.aist_names import tables
from musicinfuser import keyed_random
from small_world.generator.drawing import BackdropKind
from small_world.generator.moves import draw_manner
from small_world.generator.music import NUM_BEATS, Piece, compose
from small_world.generator.recipe import SmallWorldRecipe, even
from small_world.generator.recordings import (
    Performance,
    Recording,
    record,
    shaking_camera,
    still_camera,
)
from small_world.generator.wardrobe import (
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
TITLES = (
    "{genre} freestyle at home",
    "{genre} Dance Practice (full ver.)",
    "Learn {genre} in 5 minutes!",
    "【{genre}】踊ってみた",
    "my first {genre} cover - day {day}",
    "{genre} class, week {day}",
)
CAPTIONS = (
    "{who} in {top} and {bottom} dancing {genre} {where}",
    "{who} {dance} {genre} {where}, dressed in {top} and {bottom}",
    "a video of {who} wearing {top} and {bottom}, dancing {genre} {where}",
    "{where}, {who} in {top} and {bottom} {dance} {genre}",
)


@dataclass(frozen=True)
class WildItem:
    """A video to make: its number in the world and what is to be heard."""

    index: int
    sound: Sound


@dataclass(frozen=True)
class WildDance:
    """What is to be seen in a video; colours are names.

    Attributes:
        genre: Two letters such as ``"BR"``.
        bpm: Tempo in beats per minute, never one of AIST's.
        genders: ``"male"`` or ``"female"`` per dancer; one or two.
        top: Colour of the shirts.
        bottom: Colour of the trousers.
        backdrop: Kind and two colours of the backdrop.
        template: Which caption template.
        title: File name without its ending.
        number: Picks skin, hair, shape, frame rate and shake.
    """

    genre: str
    bpm: float
    genders: tuple[str, ...]
    top: str
    bottom: str
    backdrop: tuple[BackdropKind, str, str]
    template: int
    title: str
    number: int

    @property
    def caption(self) -> str:
        """A sentence that names dancers, outfit, genre and place."""
        if len(self.genders) == 1:
            who = "a woman" if self.genders[0] == "female" else "a man"
        elif len(set(self.genders)) == 2:
            who = "a man and a woman"
        else:
            who = "two women" if self.genders[0] == "female" else "two men"
        several = len(self.genders) > 1
        return CAPTIONS[self.template].format(
            who=who,
            dance="dance" if several else "dances",
            genre=tables().genres[self.genre],
            top=f"{self.top} shirts" if several else f"{_article(self.top)} {self.top} shirt",
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


def wild_piece(dance: WildDance, recipe: SmallWorldRecipe, *, tempo: float = 1) -> Piece:
    """The music of a video, made for it alone, or the same at so many times its tempo."""
    return compose(
        f"wild {dance.number}",
        genre=dance.genre,
        bpm=tempo * dance.bpm,
        seed=recipe.seed,
        rate_hz=recipe.audio_rate_hz,
        num_channels=recipe.audio_channels,
    )


def record_wild(item: WildItem, recipe: SmallWorldRecipe, *, tempo: float = 1) -> Recording:
    """Make a video with its caption.

    Args:
        item: Number of the video, and what is to be heard.
        recipe: Recipe of the world.
        tempo: As many seconds of the same dancer and place, to music at so many times its tempo.
    """
    dance = draw_wild(item.index, recipe.seed)
    draw = np.random.default_rng(keyed_random.key(recipe.seed, item.index, "small world take"))
    piece = wild_piece(dance, recipe, tempo=tempo)
    width, height = _size(dance.number, recipe.height)
    fps = FRAME_RATES[_turn(dance.number) % len(FRAME_RATES)]
    num_frames = round(recipe.youtube_seconds * float(draw.uniform(0.8, 1.2)) * fps)
    num_beats = num_frames / fps / piece.beat_seconds
    shake = SHAKE[dance.number % len(SHAKE)]
    box = min(1.0, width / height / SAFE_ASPECT)
    size = 0.76 * box
    floor_y = 0.43 * box
    performance = Performance(
        piece=piece,
        start_beat=float(draw.uniform(0, max(0.0, NUM_BEATS - num_beats))),
        num_frames=num_frames,
        fps=fps,
        manner=draw_manner(draw, is_advanced=bool(draw.random() < 0.3)),
        dancers=tuple(
            wild_looks(
                dance.top,
                dance.bottom,
                gender=gender,
                height=size,
                number=dance.number + i,
                backdrop=dance.backdrop,
            )
            for i, gender in enumerate(dance.genders)
        ),
        backdrop=wild_backdrop(*dance.backdrop, floor_y=floor_y - 0.09),
        camera=shaking_camera(num_frames, fps=fps, size=shake, draw=draw)
        if shake
        else still_camera(num_frames),
        yaw_degrees=float(draw.choice([0, 0, 0, 20, -20])),
        floor_y=floor_y,
        height=height,
        width=width,
    )
    recording = record(performance, draw)
    recording.truth.update(
        source="youtube", sound=item.sound, genders=list(dance.genders), top=dance.top,
        bottom=dance.bottom, backdrop=list(dance.backdrop), caption=dance.caption,
    )  # fmt: skip
    audio = recording.audio
    if item.sound == "silence" and audio is not None:
        audio = np.zeros_like(audio)
    return Recording(
        frames=recording.frames,
        fps=fps,
        audio=None if item.sound == "none" else audio,
        audio_rate_hz=recording.audio_rate_hz,
        truth=recording.truth,
        caption=dance.caption,
    )


def _draw_tempo(draw: np.random.Generator) -> float:
    while True:
        bpm = round(float(draw.uniform(76, 144)), 1)
        if bpm not in tables().music_bpm.values():
            return bpm


def _turn(number: int) -> int:
    """Counts on once more per round of the genres, so that no genre is bound to one shape."""
    return number + number // len(tables().genres)


def _size(number: int, short_side: int) -> tuple[int, int]:
    across, down = SHAPES[_turn(number) % len(SHAPES)]
    unit = short_side / min(across, down)
    return even(across * unit), even(down * unit)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
