"""What `predict` generates: tracks x prompts x seeds, or a list of requests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.aist_names import music_of, parse_name, tables
from datamodules.folders import VIDEO_SUFFIXES
from datamodules.request_lists import read_requests
from datamodules.skip_finished import FinishedSpec
from datamodules.song_lengths import check_num_seconds, frames_of
from datamodules.track_tempi import TempoSpec
from musicinfuser.clip_size import check_clip_size
from musicinfuser.errors import UserError, looked_for
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.label_files import LabelError, read_yaml
from musicinfuser.media.audio import read_audio
from musicinfuser.media.errors import MediaError

AUDIO_SUFFIXES = (
    *(".wav", ".mp3", ".flac", ".ogg", ".oga", ".m4a", ".aac", ".opus", ".wma", ".aif", ".aiff"),
    *(".ac3", ".mp2", ".mka", ".caf"),
)
HELD_OUT = "held_out"


@dataclass(frozen=True)
class RequestsSpec:
    """Every combination of tracks, prompts and seeds becomes one clip, or every line of a list."""

    music: list[str] | str = HELD_OUT
    """Audio files (or videos, whose sound is used); ``held_out`` takes the ten tracks of Table 7
    from ``music_dir``."""
    music_dir: str | None = None
    """For ``held_out``: a folder with ``<code>.wav`` or another audio file per track, or AIST
    videos that play them."""
    prompts: list[str] | str = field(default_factory=list)
    """Prompts, or a yaml file with a list under ``prompts``."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Noise seeds; the same seed gives the same noise for every track and prompt."""
    track_offset_seconds: float | None = 0.0
    """Where a clip starts in its track; null draws a start per track and seed (authors' code)."""
    num_frames: int | None = None
    """Frames per clip, 6k + 1, if not those of the training clips (authors' code: 145)."""
    num_seconds: float | None = None
    """Instead of frames: seconds per clip, however many, sampled in overlapping windows
    (``model.sampling``); ``.inf`` is all of each track, and no clip outlasts its track."""
    requests: list[str] | str | None = None
    """Instead of music, prompts and seeds: a csv file with one clip per line, or several, as
    `read_requests` reads them. What a line leaves empty is ``track_offset_seconds`` and
    ``num_frames`` or ``num_seconds`` of here."""
    tempo: TempoSpec | None = None
    """Every track at several tempi, each clip from the same moment of the music."""
    finished: FinishedSpec | None = None
    """Leave out what is whole in a folder already, so that a command that was cut off goes on."""


def make_requests(
    spec: RequestsSpec, *, num_frames: int, height: int, width: int, fps: float = 30.0
) -> list[GenerationRequest]:
    """All requests: tracks outermost, or in the order of the list.

    Raises:
        ValueError: No prompt or seed, a file that does not exist, a size Mochi cannot take, a
            length given twice, or a list that cannot be read or is not the only one to say what is
            made.
        MediaError: A track whose length is needed cannot be read.
    """
    if spec.num_seconds is not None:
        _check_length(spec)
    if spec.num_frames is not None:
        num_frames = spec.num_frames
    check_clip_size(num_frames, height, width)
    if spec.requests is not None:
        unlisted = RequestsSpec()
        both = [
            name
            for name in ("music", "music_dir", "prompts", "seeds", "tempo")
            if getattr(spec, name) != getattr(unlisted, name)
        ]
        if both:
            raise UserError(
                f"data.generation.requests lists what to make, but data.generation.{both[0]} is "
                "given too; leave one of them out."
            )
        return read_requests(
            [spec.requests] if isinstance(spec.requests, str) else spec.requests,
            num_frames=num_frames,
            height=height,
            width=width,
            track_offset_seconds=spec.track_offset_seconds,
            num_seconds=spec.num_seconds,
            fps=fps,
        )
    prompts = _prompts(spec.prompts)
    tracks = _tracks(spec)
    offset = spec.track_offset_seconds
    starts = (
        [(track, offset) for track in tracks]
        if spec.tempo is None
        else spec.tempo.starts(tracks, offset_seconds=offset)
    )
    if not spec.seeds:
        raise UserError("data.generation.seeds is empty; name at least one.")
    return [
        GenerationRequest(
            track=str(track),
            prompt=prompt,
            seed=seed,
            num_frames=frames,
            height=height,
            width=width,
            track_offset_seconds=offset_seconds,
            in_windows=spec.num_seconds is not None,
        )
        for track, offset_seconds in starts
        for frames in [
            num_frames
            if spec.num_seconds is None
            else frames_of(
                str(track), num_seconds=spec.num_seconds, start_seconds=offset_seconds, fps=fps
            )
        ]
        for prompt in prompts
        for seed in spec.seeds
    ]


def _check_length(spec: RequestsSpec) -> None:
    assert spec.num_seconds is not None
    check_num_seconds(spec.num_seconds)
    for name in ("num_frames", "tempo"):
        if getattr(spec, name) is not None:
            raise UserError(
                f"data.generation.num_seconds is {spec.num_seconds:g}, but data.generation.{name} "
                "is given too; leave one of them out."
            )


def write_tempi(spec: RequestsSpec) -> None:
    """Write the tracks at other tempi that `make_requests` names, if it names any.

    Raises:
        MediaError: A track cannot be read.
    """
    if spec.tempo is not None:
        spec.tempo.write(_tracks(spec))


def require_sounds(requests: Sequence[GenerationRequest]) -> None:
    """Refuse to start with a track, or what is heard in its place, that cannot be heard.

    The first tenth of a second of each file is decoded: one that breaks off later passes.

    Raises:
        MediaError: How many cannot be read, and what is wrong with the first.
    """
    files = dict.fromkeys(f for c in requests for f in (c.track, c.heard_file) if f is not None)
    errors = []
    for file in files:
        try:
            read_audio(file, duration_seconds=0.1)
        except MediaError as error:
            errors.append(error)
    if len(errors) > 1:
        raise MediaError(
            f"{len(errors)} of {len(files)} sounds cannot be used; the first: {errors[0]}"
        )
    if errors:
        raise errors[0]


def _prompts(prompts: list[str] | str) -> list[str]:
    if isinstance(prompts, str):
        path = Path(prompts)
        if not path.is_file():
            raise UserError(
                f"data.generation.prompts names {path}, which does not exist; give a yaml file "
                f"with a list under `prompts`, or a list like ['a dance video']{looked_for(path)}."
            )
        content = read_yaml(path)
        listed = content.get("prompts") if isinstance(content, dict) else None
        if not isinstance(listed, list) or not all(isinstance(p, str) for p in listed):
            raise LabelError(path, "must hold a list of texts under `prompts`.")
        prompts = listed
    if not prompts:
        raise UserError("data.generation.prompts is empty; give at least one prompt.")
    return prompts


def _tracks(spec: RequestsSpec) -> list[Path]:
    if spec.music == HELD_OUT:
        if spec.music_dir is None:
            raise UserError(
                "data.generation.music is held_out, which needs data.generation.music_dir: a "
                "folder with the ten tracks of Table 7 or AIST videos that play them."
            )
        return held_out_tracks(Path(spec.music_dir))
    names = [spec.music] if isinstance(spec.music, str) else spec.music
    if not names:
        raise UserError("data.generation.music is empty; name at least one song, or held_out.")
    tracks = [Path(name) for name in names]
    missing = [track for track in tracks if not track.is_file()]
    if missing:
        raise UserError(
            f"data.generation.music names {missing[0]}, which does not exist"
            f"{looked_for(missing[0])}."
        )
    return tracks


def held_out_tracks(folder: Path) -> list[Path]:
    """One file per held-out track: an audio file named by its code, else a video that plays it.

    Raises:
        ValueError: A track of the ten is not there; names all that are missing.
    """
    if not folder.is_dir():
        raise UserError(
            f"data.generation.music_dir names {folder}, which is not a folder{looked_for(folder)}."
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    by_code: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            name = parse_name(path.name)
            heard = (music_of(name) or ()) if name else ()
            if len(heard) == 1:
                by_code.setdefault(heard[0], path)
    by_code |= {path.stem: path for path in files if path.suffix.lower() in AUDIO_SUFFIXES}
    codes = sorted(tables().held_out_music)
    missing = [code for code in codes if code not in by_code]
    if missing:
        raise UserError(
            f"{folder} has no file for the held-out tracks {', '.join(missing)}; name audio files "
            "by their code (mBR0.wav) or give a folder of AIST videos."
        )
    return [by_code[code] for code in codes]
