"""File names of the AIST Dance Video Database and the tables behind their codes.

Two forms exist (https://aistdancedb.ongaaccel.jp/data_formats): ``gBR_sBM_c01_d04_mBR0_ch01.mp4``
for basic, advanced, moving-camera and group dances (groups join three dancers), and
``sSH_c01_v0.mp4`` for showcases, cyphers and battles, a battle optionally with its two dancers
before the variation. AIST++ names a sequence, seen by all cameras, with ``cAll``.
"""

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from musicinfuser.aist_music import MUSIC_BPM
from musicinfuser.label_files import read_csv, read_yaml

TABLES_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "aist"
ALL_CAMERAS = "cAll"
_DANCE = re.compile(
    r"g(?P<genre>[A-Z]{2})_s(?P<situation>BM|FM|MM|GR)_(?P<camera>c\d\d|cAll)(?P<dancers>(?:_d\d\d)+)"
    r"_(?P<music>m[A-Z]{2}\d)_(?P<choreography>ch\d\d)(?:\.[A-Za-z0-9]+)?"
)
_VARIATION = re.compile(
    r"s(?P<situation>SH|CY|BT)_(?P<camera>c\d\d|cAll)(?P<dancers>(?:_d\d\d)*)_(?P<variation>v\d+)"
    r"(?:\.[A-Za-z0-9]+)?"
)


@dataclass(frozen=True)
class AISTName:
    """A parsed name; the parts are the codes as written, None where the form has no such part.

    Attributes:
        genre: Two letters such as ``"BR"``.
        situation: Two letters such as ``"BM"``.
        camera: ``"c01"`` to ``"c10"``, or ``"cAll"`` for an AIST++ sequence.
        dancers: Codes such as ``("d04",)``; empty if the name states none.
        music: A code such as ``"mBR0"``.
        choreography: A code such as ``"ch01"``.
        variation: A code such as ``"v0"``.
    """

    genre: str | None
    situation: str
    camera: str
    dancers: tuple[str, ...]
    music: str | None
    choreography: str | None
    variation: str | None

    def __str__(self) -> str:
        """The name without a file ending."""
        start = (f"g{self.genre}",) if self.genre else ()
        middle = (f"s{self.situation}", self.camera, *self.dancers)
        end = tuple(part for part in (self.music, self.choreography, self.variation) if part)
        return "_".join(start + middle + end)

    @property
    def sequence(self) -> str:
        """The AIST++ sequence this recording belongs to: the same name with ``cAll``."""
        return str(replace(self, camera=ALL_CAMERAS))


@dataclass(frozen=True)
class AISTTables:
    """The code tables of ``assets/aist``; see the comments there for their origin.

    Attributes:
        genres: Code to name, ten entries.
        situations: Code to name, seven entries.
        cameras: Code to view, ten entries.
        dancers: Code to gender, ``"male"`` or ``"female"``, 35 entries.
        music_bpm: Code to tempo in beats per minute, 60 entries.
        variations: Situation and variation code to ``dancers`` and ``music`` of a showcase, cypher
            or battle, as far as published lists were read.
        held_out_music: The ten pieces of Table 7.
        crossmodal: The AIST++ cross-modal split.
    """

    genres: dict[str, str]
    situations: dict[str, str]
    cameras: dict[str, str]
    dancers: dict[str, str]
    music_bpm: dict[str, int]
    variations: dict[tuple[str, str | None], dict[str, tuple[str, ...]]]
    held_out_music: frozenset[str]
    crossmodal: dict[str, Any]


@functools.cache
def tables() -> AISTTables:
    """The code tables, read once."""
    codes, splits = (read_yaml(TABLES_FOLDER / name) for name in ("codes.yaml", "splits.yaml"))
    rows = read_csv(TABLES_FOLDER / "dancers.csv", required=("dancer", "gender"), others=True)
    everyone = codes["variation_dancers"]
    variations = {
        (entry["situation"], code): {
            "dancers": tuple(everyone if entry["dancers"] == "all" else entry["dancers"]),
            "music": tuple(entry["music"]),
        }
        for code, entry in codes["variations"].items()
    }
    return AISTTables(
        genres=codes["genres"],
        situations=codes["situations"],
        cameras=codes["cameras"],
        dancers={row["dancer"]: row["gender"] for _, row in rows},
        music_bpm=MUSIC_BPM,
        variations=variations,
        held_out_music=frozenset(splits["held_out_music"]),
        crossmodal=splits["crossmodal"],
    )


def parse_name(name: str | PurePath) -> AISTName | None:
    """Take an AIST name apart.

    Args:
        name: File name or path, with or without one ending; only the last part counts.

    Returns:
        The parts, or None if the name has neither form or uses a code that the tables lack.
    """
    last = PurePath(name).name
    match = _DANCE.fullmatch(last) or _VARIATION.fullmatch(last)
    if match is None:
        return None
    parts = match.groupdict()
    dancers = tuple(parts.pop("dancers").split("_")[1:])
    optional: dict[str, Any] = dict.fromkeys(("genre", "music", "choreography", "variation"))
    parsed = AISTName(**optional | parts, dancers=dancers)
    known = tables()
    has_known_codes = (
        (parsed.genre is None or parsed.genre in known.genres)
        and (parsed.camera == ALL_CAMERAS or parsed.camera in known.cameras)
        and all(dancer in known.dancers for dancer in parsed.dancers)
        and (parsed.music is None or parsed.music in known.music_bpm)
    )
    return parsed if has_known_codes else None


def music_of(name: AISTName) -> tuple[str, ...] | None:
    """Every piece played in a recording, in order; None for a variation that the tables lack."""
    if name.music is not None:
        return (name.music,)
    return tables().variations.get((name.situation, name.variation), {}).get("music")


def dancers_of(name: AISTName) -> tuple[str, ...] | None:
    """The dancers of a recording, from the name or the variation; None if neither tells."""
    variation = tables().variations.get((name.situation, name.variation), {})
    return name.dancers or variation.get("dancers")


def is_held_out(name: AISTName) -> bool:
    """Whether a recording must stay out of training (Table 7).

    True if any piece played in it is held out. A variation whose pieces are not listed counts as
    held out too, since it cannot be shown to be free of test music.
    """
    music = music_of(name)
    return music is None or not tables().held_out_music.isdisjoint(music)


def aistpp_split(name: AISTName) -> str | None:
    """The AIST++ cross-modal split of a recording (c01 to c09) or sequence (cAll), if any.

    ``"train"`` (980 sequences) is decided by rule (music outside the ten pieces; advanced dances,
    or basic ones with ch03 to ch10), ``"test"`` (20) by the published list, and ``"val"`` (20) by
    choreography ch01 of the dancers and music of that list (inferred from the counts). The list of
    bad poses that AIST++ ignores is not applied.
    """
    crossmodal = tables().crossmodal
    if (
        len(name.dancers) != 1
        or name.music is None
        or name.choreography is None
        or name.camera not in (*crossmodal["cameras"], ALL_CAMERAS)
    ):
        return None
    is_held_out_music = name.music in tables().held_out_music
    for split, rule in crossmodal["rules"].items():
        if (
            name.situation not in rule["choreographies"]
            or is_held_out_music != rule["held_out_music"]
        ):
            continue
        bounds = rule["choreographies"][name.situation]
        is_inside = not bounds or bounds[0] <= int(name.choreography[2:]) <= bounds[1]
        is_listed = split == "train" or (name.dancers[0], name.music) in _test_pairs()
        if is_inside and is_listed:
            return split
    return None


@functools.cache
def _test_pairs() -> frozenset[tuple[str, str | None]]:
    parsed = map(parse_name, tables().crossmodal["test_sequences"])
    return frozenset((name.dancers[0], name.music) for name in parsed if name is not None)
