"""File names of the AIST Dance Video Database and the tables behind their codes.

Two forms exist (https://aistdancedb.ongaaccel.jp/data_formats): ``gBR_sBM_c01_d04_mBR0_ch01.mp4``
for basic, advanced, moving-camera and group dances (groups join three dancers), and
``sSH_c01_v0.mp4`` for showcases, cyphers and battles, a battle optionally with its two dancers
before the variation. AIST++ names a sequence, seen by all cameras, with ``cAll``.
"""

import csv
import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal

import yaml

from musicinfuser.aist_music import MUSIC_BPM
from musicinfuser.errors import UserError

AISTPPSplit = Literal["train", "val", "test"]

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
class Dancer:
    """What is known of a dancer: gender (``"male"`` or ``"female"``), age range, style of dance."""

    gender: str
    age: str
    style: str


@dataclass(frozen=True)
class Variation:
    """What is danced in a showcase, cypher or battle: who, and to which pieces in turn."""

    situation: str
    dancers: tuple[str, ...]
    music: tuple[str, ...]


@dataclass(frozen=True)
class AISTTables:
    """The code tables of ``assets/aist``; see the comments there for their origin.

    Attributes:
        genres: Code to name, ten entries.
        situations: Code to name, seven entries.
        cameras: Code to view, ten entries.
        dancers: Code to dancer, 35 entries.
        music_bpm: Code to tempo in beats per minute, 60 entries.
        variations: Code to variation, as far as published lists were read.
        held_out_music: The ten pieces of Table 7.
    """

    genres: dict[str, str]
    situations: dict[str, str]
    cameras: dict[str, str]
    dancers: dict[str, Dancer]
    music_bpm: dict[str, int]
    variations: dict[str, Variation]
    held_out_music: frozenset[str]


@functools.cache
def tables() -> AISTTables:
    """The code tables, read once."""
    codes = yaml.safe_load((TABLES_FOLDER / "codes.yaml").read_text("utf-8"))
    with open(TABLES_FOLDER / "dancers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    everyone = tuple(codes["variation_dancers"])
    return AISTTables(
        genres=codes["genres"],
        situations=codes["situations"],
        cameras=codes["cameras"],
        dancers={row["dancer"]: Dancer(row["gender"], row["age"], row["style"]) for row in rows},
        music_bpm=MUSIC_BPM,
        variations={
            code: Variation(
                situation=entry["situation"],
                dancers=everyone if entry["dancers"] == "all" else tuple(entry["dancers"]),
                music=tuple(entry["music"]),
            )
            for code, entry in codes["variations"].items()
        },
        held_out_music=frozenset(_splits()["held_out_music"]),
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
    parsed = AISTName(
        genre=parts.get("genre"),
        situation=parts["situation"],
        camera=parts["camera"],
        dancers=tuple(parts["dancers"].split("_")[1:]),
        music=parts.get("music"),
        choreography=parts.get("choreography"),
        variation=parts.get("variation"),
    )
    known = tables()
    has_known_codes = (
        (parsed.genre is None or parsed.genre in known.genres)
        and (parsed.camera == ALL_CAMERAS or parsed.camera in known.cameras)
        and all(dancer in known.dancers for dancer in parsed.dancers)
        and (parsed.music is None or parsed.music in known.music_bpm)
    )
    return parsed if has_known_codes else None


def music_of(name: AISTName) -> tuple[str, ...] | None:
    """Every piece heard in a recording, in order; None for a variation that the tables lack."""
    if name.music is not None:
        return (name.music,)
    variation = _variation(name)
    return variation.music if variation else None


def dancers_of(name: AISTName) -> tuple[str, ...] | None:
    """The dancers of a recording, from the name or the variation; None if neither tells."""
    if name.dancers:
        return name.dancers
    variation = _variation(name)
    return variation.dancers if variation else None


def is_held_out(name: AISTName) -> bool:
    """Whether a recording must stay out of training (Table 7).

    True if any piece heard in it is held out. A variation whose pieces are not listed counts as
    held out too, since it cannot be shown to be free of test music.
    """
    music = music_of(name)
    return music is None or not tables().held_out_music.isdisjoint(music)


def is_in_aistpp(name: AISTName | str, split: AISTPPSplit) -> bool:
    """Whether a recording or sequence is part of an AIST++ cross-modal split.

    Train is decided by rule (music outside the ten pieces; advanced dances, or basic ones with ch03
    to ch10), test by the published list, and val by choreography ch01 of the dancers and music of
    that list (inferred from the counts). The list of bad poses that AIST++ ignores is not applied.

    Args:
        name: Parsed or raw name of a video (c01 to c09) or of a sequence (cAll).
        split: ``"train"`` (980 sequences), ``"val"`` (20) or ``"test"`` (20).

    Raises:
        ValueError: If there is no such split.
    """
    crossmodal = _splits()["crossmodal"]
    if split not in crossmodal["rules"]:
        raise UserError(f"AIST++ has no cross-modal split {split!r}; use train, val or test.")
    parsed = parse_name(name) if isinstance(name, str) else name
    if parsed is None or parsed.music is None or parsed.choreography is None:
        return False
    rule = crossmodal["rules"][split]
    if (
        len(parsed.dancers) != 1
        or parsed.situation not in rule["choreographies"]
        or parsed.camera not in (*crossmodal["cameras"], ALL_CAMERAS)
        or (parsed.music in tables().held_out_music) != rule["held_out_music"]
    ):
        return False
    bounds = rule["choreographies"][parsed.situation]
    if bounds and not bounds[0] <= int(parsed.choreography[2:]) <= bounds[1]:
        return False
    return split == "train" or (parsed.dancers[0], parsed.music) in _test_pairs()


def _variation(name: AISTName) -> Variation | None:
    found = tables().variations.get(name.variation or "")
    return found if found and found.situation == name.situation else None


@functools.cache
def _splits() -> dict:
    return yaml.safe_load((TABLES_FOLDER / "splits.yaml").read_text("utf-8"))


@functools.cache
def _test_pairs() -> frozenset[tuple[str, str | None]]:
    parsed = [parse_name(sequence) for sequence in _splits()["crossmodal"]["test_sequences"]]
    return frozenset((name.dancers[0], name.music) for name in parsed if name is not None)
