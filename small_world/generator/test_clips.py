"""Which clips of a small world make a test set, where they are cut, and what is true of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datamodules.aist import AISTDataset
from datamodules.aist_names import is_held_out, parse_name
from datamodules.clips import CROPS, ClipSpec, CutSettings, RawClip, SkippedClip
from datamodules.cutting import ClipDataset
from datamodules.youtube import YouTubeDataset
from musicinfuser.clip_size import check_clip_size
from musicinfuser.errors import UserError
from musicinfuser.media.seeking import PTS_TOLERANCE_SECONDS
from musicinfuser.setting_checks import check_choice, check_number
from small_world.generator.corpus import read_truth

HEIGHT, WIDTH, FPS = 64, 64, 30.0
FRONT_CAMERA = "c01"
TestSource = Literal["aist", "youtube"]
Truth = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """Which clips a test set holds.

    Attributes:
        source: ``"aist"``: held-out music, filmed from the front; ``"youtube"``: videos from the
            wild with sound.
        num_clips: How many, each of another video, spread evenly over those that there are.
        num_frames: Frames per clip, 6k + 1.
        seed: Seed of clip starts and caption templates; that of an encode job gives its clips.
        several_dancers: Whether clips may show more than one dancer.
    """

    source: TestSource = "aist"
    num_clips: int = 96
    num_frames: int = 73
    seed: int = 0
    several_dancers: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that are out of their range."""
        check_clip_size(self.num_frames, HEIGHT, WIDTH)
        check_choice("source", self.source, get_args(TestSource))
        hint = ", since each gets another's music"
        check_number("num_clips", self.num_clips, at_least=2, hint=hint)


@dataclass(frozen=True, eq=False)
class Take:
    """A chosen clip: its number in the set, where it is cut, and the truth about its video."""

    number: int
    spec: ClipSpec
    truth: Truth

    @property
    def name(self) -> str:
        """File name without its ending."""
        return f"{self.number:03d}_{self.spec.clip_id.removesuffix('.seg0')}"


def choose(world: Path, choice: Choice) -> tuple[ClipDataset, list[Take]]:
    """The dataset of all clips that could be taken, and those that are; `UserError` for too few."""
    truths = _truths(world, choice)
    dataset = cut_dataset(world / choice.source, choice, list(truths)) if truths else None
    # The first clip of every video.
    firsts = {spec.path: spec for spec in reversed(dataset.clips if dataset else [])}
    specs = sorted(firsts.values(), key=lambda spec: spec.path.name)
    if dataset is None or len(specs) < choice.num_clips:
        left_out = dataset.skipped if dataset else []
        reason = f" ({len(left_out)} are left out: {left_out[0].reason})" if left_out else ""
        option = "--held-out" if choice.source == "aist" else "--num-youtube"
        raise UserError(
            f"{world} holds {len(specs)} videos for {choice.source} clips{reason}, fewer than "
            f"{choice.num_clips}; make a world with more ({option}) or ask for fewer clips."
        )
    chosen = [specs[i * len(specs) // choice.num_clips] for i in range(choice.num_clips)]
    return dataset, [Take(i, spec, truths[spec.path.name]) for i, spec in enumerate(chosen)]


def clip_truth(truth: Truth, spec: ClipSpec, *, prompt: str, sound_seconds: float) -> Truth:
    """The truth about a video, moved to the clock and into the frames of a clip.

    As for a video: ``beats_seconds`` so far with ``beat_in_bar``, and ``joints`` of shape
    (num_dancers, T, 15, 2) as shares of the clip's width and height, which may leave [0, 1].
    """
    start_seconds = spec.start_seconds
    beats = [
        (round(seconds - start_seconds, 5), place)
        for seconds, place in zip(truth["beats_seconds"], truth["beat_in_bar"], strict=True)
        if 0 <= seconds - start_seconds < sound_seconds
    ]
    return {
        **truth,
        "prompt": prompt,
        "start_seconds": round(start_seconds, 6),
        "music_start_seconds": round(truth["music_start_seconds"] + start_seconds, 5),
        "beats_seconds": [seconds for seconds, _ in beats],
        "beat_in_bar": [place for _, place in beats],
        "fps": FPS,
        "num_frames": spec.num_frames,
        "height": HEIGHT,
        "width": WIDTH,
        "joints": np.round(joints_in_clip(truth, spec, fps=FPS), 4).tolist(),
    }


def joints_in_clip(truth: Truth, spec: ClipSpec, *, fps: float) -> NDArray[np.float64]:
    """Joints in the frames that a clip of a video shows, as shares of its width and height.

    Shape (num_dancers, T, 15, 2); outside [0, 1] where a joint is cut off.
    """
    joints = np.asarray(truth["joints"], float)
    seconds = spec.start_seconds + np.arange(spec.num_frames) / fps
    shown = np.floor((seconds + PTS_TOLERANCE_SECONDS) * truth["fps"]).astype(int)
    size = np.array([truth["width"], truth["height"]])
    box = CROPS[spec.crop](*size.tolist(), target_height=spec.height, target_width=spec.width)
    pixels = joints[:, np.minimum(shown, joints.shape[1] - 1)] * size - (box.left, box.top)
    inside: NDArray[np.float64] = pixels / (box.width, box.height)
    return inside


def _truths(world: Path, choice: Choice) -> dict[str, Truth]:
    """What is true of the videos that fit, by name."""
    fitting = {}
    for path in sorted((world / choice.source).glob("[!.]*.mp4")):
        if choice.source == "aist":
            name = parse_name(path)
            if name is None or name.camera != FRONT_CAMERA or not is_held_out(name):
                continue
        truth = read_truth(world, path)
        is_danced = "joints" in truth and truth.get("sound", "music") == "music"
        if is_danced and (truth["num_dancers"] == 1 or choice.several_dancers):
            fitting[path.name] = truth
    return fitting


def cut_dataset(root: Path, choice: Choice, files: list[str]) -> ClipDataset:
    """Clips of some videos below a folder, as the encode job cuts them."""
    kind = AISTDataset if choice.source == "aist" else YouTubeDataset
    settings = CutSettings(
        num_frames=choice.num_frames, height=HEIGHT, width=WIDTH, fps=FPS, seed=choice.seed
    )
    return kind(settings, root, files=files)


def decoded(dataset: ClipDataset, index: int) -> RawClip:
    """A clip of a dataset; ValueError if it cannot be read or has no sound."""
    clip = dataset[index]
    if isinstance(clip, SkippedClip):
        raise UserError(f"{clip.path}: gives no clip ({clip.reason}); make the world again.")
    return clip
