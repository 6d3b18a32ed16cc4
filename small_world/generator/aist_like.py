"""Recordings under AIST names: white studio, known dancers, cameras and pieces."""

import math

import numpy as np

from datamodules.aist_names import AISTName, dancers_of, music_of, parse_name, tables
from musicinfuser import keyed_random
from small_world.generator.moves import draw_manner
from small_world.generator.music import BEATS_PER_BAR, NUM_BEATS, Piece
from small_world.generator.recipe import SmallWorldRecipe, even
from small_world.generator.recordings import (
    STANDS,
    Recording,
    gliding_camera,
    joined,
    record,
    still_camera,
)
from small_world.generator.wardrobe import aist_looks, studio

YAW_DEGREES = {
    "c01": 0, "c02": 45, "c03": 90, "c04": 135, "c05": 180,
    "c06": -135, "c07": -90, "c08": -45, "c09": 0, "c10": 0,
}  # fmt: skip
"""The side of the dancer that a camera sees; AIST places them on a circle."""

CLOSE_UP_ZOOM = 1.12
FLOOR_Y, LINE_Y, DANCER_HEIGHT = 0.385, 0.30, 0.52
"""In the crop of AIST videos (0.25 to 0.917 of the frame) a dancer fills most of the height."""

PLAN = (
    ("BM", "c01"), ("FM", "c01"), ("BM", "c01"), ("GR", "c01"), ("BM", "c01"), ("MM", "c10"),
    ("BM", "c01"), ("BM", ""), ("FM", "c01"), ("BM", "c01"), ("BM", "c01"),
)  # fmt: skip
"""Situations and cameras in turn; eleven of them, so that each meets each of the ten genres."""

OTHER_CAMERAS = ("c02", "c03", "c05", "c08", "c09")
CYPHER_PIECES, CYPHER_BEATS = 3, 8
VARIATIONS = ("sSH_c01_v0", "sCY_c01_v3")


def plan_aist(recipe: SmallWorldRecipe) -> list[AISTName]:
    """Names of all AIST recordings of a world, each once.

    Training recordings use music that is not held out; each is drawn by itself, so that a longer
    plan contains the shorter one.
    """
    known = tables()
    names: dict[str, AISTName] = {}
    genres = list(known.genres)

    def add(key: str, index: int, situation: str, camera: str, *, is_held_out: bool) -> None:
        genre = genres[index % len(genres)]
        pieces = [
            piece
            for piece in known.music_bpm
            if piece[1:3] == genre and (piece in known.held_out_music) == is_held_out
        ]
        draw = np.random.default_rng(
            keyed_random.key(recipe.seed, f"{key} {index}", "small world name")
        )
        name = None
        while name is None or str(name) in names:
            num_dancers = 3 if situation == "GR" else 1
            dancers = draw.choice(list(known.dancers), num_dancers, replace=False)
            name = AISTName(
                genre=genre,
                situation=situation,
                camera=camera,
                dancers=tuple(sorted(str(dancer) for dancer in dancers)),
                music=str(draw.choice(pieces)),
                choreography=f"ch{int(draw.integers(1 if is_held_out else 3, 22)):02d}",
                variation=None,
            )
        names[str(name)] = name

    for index in range(recipe.num_aist):
        situation, camera = PLAN[index % len(PLAN)]
        camera = camera or OTHER_CAMERAS[index // len(PLAN) % len(OTHER_CAMERAS)]
        add("train", index, situation, camera, is_held_out=False)
    for index in range(recipe.num_held_out):
        add("held out", index, "BM", "c01", is_held_out=True)
    variations = map(parse_name, VARIATIONS if recipe.with_variations else ())
    return [*names.values(), *filter(None, variations)]


def aist_piece(code: str, recipe: SmallWorldRecipe, *, tempo: float = 1) -> Piece:
    """The piece behind a music code such as ``"mBR0"``, or the same at so many times its tempo."""
    return recipe.compose(code, genre=code[1:3], bpm=tempo * tables().music_bpm[code])


def record_aist(name: AISTName, recipe: SmallWorldRecipe, *, tempo: float = 1) -> Recording:
    """Make a recording from its name.

    What is danced depends on the sequence, so all cameras see the same dance, as in AIST. With
    ``tempo`` it is the same dance to the same beats at so many times the tempo of its music.
    """
    pieces, dancers = music_of(name) or (), dancers_of(name) or ()
    if name.situation == "CY":
        return joined(
            [
                _record_part(name, recipe, music, dancers[i : i + 1], CYPHER_BEATS, i, tempo)
                for i, music in enumerate(pieces[:CYPHER_PIECES])
            ]
        )
    is_long = name.situation in ("FM", "MM", "SH")
    num_beats = recipe.advanced_beats if is_long else recipe.basic_beats
    return _record_part(name, recipe, pieces[0], dancers[: max(STANDS)], num_beats, 0, tempo)


def _record_part(
    name: AISTName, recipe: SmallWorldRecipe, music: str, dancers: tuple[str, ...], num_beats: int,
    part: int, tempo: float,
) -> Recording:  # fmt: skip
    purpose = f"small world dance {part}"
    draw = np.random.default_rng(keyed_random.key(recipe.seed, name.sequence, purpose))
    piece = aist_piece(music, recipe, tempo=tempo)
    last_bar = (NUM_BEATS - num_beats) // BEATS_PER_BAR
    start_beat = BEATS_PER_BAR * int(draw.integers(0, last_bar + 1)) - float(draw.random())
    num_frames = math.floor(num_beats * piece.beat_seconds * recipe.aist_fps)
    manner = draw_manner(draw, is_advanced=name.situation in ("FM", "SH", "CY"))
    if name.camera == "c10":
        shot = np.random.default_rng(keyed_random.key(recipe.seed, str(name), "small world shot"))
        camera = gliding_camera(num_frames, fps=recipe.aist_fps, draw=shot)
    else:
        camera = still_camera(num_frames, zoom=CLOSE_UP_ZOOM if name.camera == "c09" else 1.0)
    recording = record(
        piece,
        draw,
        start_beat=start_beat,
        num_frames=num_frames,
        fps=recipe.aist_fps,
        manner=manner,
        dancers=tuple(aist_looks(dancer, height=DANCER_HEIGHT) for dancer in dancers),
        backdrop=studio(LINE_Y),
        camera=camera,
        yaw_degrees=YAW_DEGREES[name.camera],
        floor_y=FLOOR_Y,
        height=recipe.height,
        width=even(recipe.height * 16 / 9),
    )
    recording.truth.update(source="aist", camera=name.camera, situation=name.situation)
    recording.truth["dancers"] = list(dancers)
    return recording
