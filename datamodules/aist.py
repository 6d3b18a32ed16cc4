"""Clips of the AIST Dance Video Database, and the captions made from their names (Table 8)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from datamodules.aist_names import (
    AISTName,
    aistpp_split,
    dancers_of,
    is_held_out,
    music_of,
    parse_name,
    tables,
)
from datamodules.clips import CropMode, CutSettings, NotSelected, SkippedClip, SourceVideo
from datamodules.cutting import ClipDataset
from musicinfuser import keyed_random
from musicinfuser.errors import UserError

AUTHORS_CAMERAS = ("c01", "c10")
AUTHORS_SITUATIONS = ("BM", "FM", "GR", "MM")

AIST_TEMPLATES = (
    "{dancers_text} dancing {genre_name} in a {situation_name} setting in a studio with a white"
    " backdrop, captured from a {camera_view}",
    "a {camera_view} video of {dancers_text} performing {genre_name} choreography against a white"
    " background in a {situation_name} scene",
    "{dancers_text} executing {genre_name} movements in a minimalist studio space in a"
    " {situation_name} setting, shot from a {camera_view}",
    "a {genre_name} dance performance by {dancers_text} in a pristine white studio, {camera_view},"
    " {situation_name}",
)
"""Table 8 to the letter, in the order of the authors' code. The slip "in a advanced dance setting"
stays, because models adapted with them have read exactly these words."""

AIST_TEMPLATE_WITHOUT_GENRE = (
    "{dancers_text} dancing in a {situation_name} setting in a studio with a white backdrop,"
    " captured from a {camera_view}"
)
"""Our own, for showcases, cyphers and battles, whose names state no genre."""

AIST_BASE_CAPTION = "a professional dancer dancing in a studio with a white backdrop"
"""Stands in for an AIST caption in a part of the training steps (Table 8, section 4.5)."""

MAX_NAMED_DANCERS = 3


class AISTDataset(ClipDataset):
    """Clips cut from AIST videos, captioned from their names.

    A clip is ``"held_out"`` if any piece played in its video is one of the ten of Table 7. The
    defaults are what the authors' code does in effect: the two front cameras, and no showcases,
    cyphers and battles. Their code drops those three only because it looks for the camera at a
    place of the name where they have none; they stay out here too because cyphers mix in held-out
    pieces and captions of the three cannot name the genre.

    Videos come from https://aistdancedb.ongaaccel.jp after its terms of use are accepted.
    """

    source = "aist"

    def __init__(
        self,
        settings: CutSettings,
        root: str | Path,
        *,
        cameras: Sequence[str] | None = AUTHORS_CAMERAS,
        situations: Sequence[str] | None = AUTHORS_SITUATIONS,
        crop: CropMode = "aist",
        **options: Any,
    ) -> None:
        """Find the videos below a folder and decide their clips.

        Args:
            settings: What is the same for all sources.
            root: Folder with videos under their AIST names, at any depth.
            cameras: Cameras to keep, or None for all.
            situations: Situations to keep, or None for all seven.
            crop: ``"aist"`` or ``"centre"``.
            **options: As `ClipDataset` takes them.

        Raises:
            UserError: As `ClipDataset`; or there is no such camera or situation.
        """
        known = tables()
        for setting, codes, names in (
            ("cameras", cameras, known.cameras),
            ("situations", situations, known.situations),
        ):
            if unknown := sorted(set(codes or ()) - set(names)):
                raise UserError(
                    f"{setting}: no such code as {unknown[0]!r}; known are {sorted(names)}."
                )
        self.cameras = set(known.cameras if cameras is None else cameras)
        self.situations = set(known.situations if situations is None else situations)
        super().__init__(settings, root, crop=crop, **options)

    def describe(self, path: Path) -> SourceVideo | NotSelected | SkippedClip:
        """What the name of a video says."""
        name = parse_name(path)
        if name is None:
            return SkippedClip(self.source, path, f"not an AIST name: {path.name}")
        if name.situation not in self.situations:
            return NotSelected(f"situation {name.situation}")
        if name.camera not in self.cameras:
            return NotSelected(f"camera {name.camera}")
        pieces = music_of(name)
        music = pieces[0] if pieces and len(pieces) == 1 else None
        attributes = {
            "genre": name.genre,
            "situation": name.situation,
            "camera": name.camera,
            "dancers": ",".join(name.dancers),
            "choreography": name.choreography,
            "variation": name.variation,
            "bpm": str(tables().music_bpm[music]) if music else None,
            "aistpp_split": aistpp_split(name),
        }
        return SourceVideo(
            path=path,
            clip_stem=str(name),
            caption="",
            base_caption=AIST_BASE_CAPTION,
            music=music,
            split="held_out" if is_held_out(name) else "train",
            attributes={key: value for key, value in attributes.items() if value},
        )

    def caption(self, video: SourceVideo, clip_id: str) -> str:
        """One of the four sentences, drawn for each clip."""
        name = parse_name(video.path)
        assert name is not None
        return aist_caption(name, template_index=draw_template(clip_id, seed=self.settings.seed))


def aist_caption(name: AISTName, *, template_index: int) -> str:
    """Caption a recording (not ``cAll``) by one of the four templates, 0 to 3.

    Names without a genre have one form only and ignore it.
    """
    known = tables()
    dancers = dancers_of(name) or ()
    words = {
        "situation_name": known.situations[name.situation],
        "camera_view": known.cameras[name.camera],
        "dancers_text": dancers_text([known.dancers[dancer] for dancer in dancers])
        if 0 < len(dancers) <= MAX_NAMED_DANCERS
        else "a group of professional dancers",
    }
    if name.genre is None:
        return AIST_TEMPLATE_WITHOUT_GENRE.format(**words)
    return AIST_TEMPLATES[template_index].format(genre_name=known.genres[name.genre], **words)


def dancers_text(genders: Sequence[str]) -> str:
    """Name one or more dancers, ``"male"`` or ``"female"``, one by one as the authors' code does.

    Commas stand between them, then "and" without a comma before it.
    """
    *first, last = (f"a professional {gender} dancer" for gender in genders)
    return f"{', '.join(first)} and {last}" if first else last


def draw_template(clip_id: str, *, seed: int) -> int:
    """Draw one of the four templates for a clip, 0 to 3, equally likely.

    The authors draw once per file and lose the captions of files cut more than once; here every
    clip has its own draw.
    """
    stream = keyed_random.generator(seed, clip_id, "caption template")
    return int(torch.randint(len(AIST_TEMPLATES), (), generator=stream))
