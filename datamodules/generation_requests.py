"""What `predict` generates: tracks x prompts x seeds, or a list of requests."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datamodules.aist_names import music_of, parse_name, tables
from datamodules.finished_clips import FinishedSpec
from datamodules.folders import VIDEO_SUFFIXES
from datamodules.request_lists import frames_of, read_requests, seconds_of
from datamodules.track_tempi import TempoSpec
from musicinfuser.aist_music import music_code
from musicinfuser.clip_size import MOCHI, LatentGeometry, check_clip_size, check_takes_image
from musicinfuser.errors import UserError, looked_for
from musicinfuser.fingerprint import file_digest
from musicinfuser.generation_requests import NO_AUDIO, SILENCE, GenerationRequest
from musicinfuser.label_files import LabelError, read_yaml
from musicinfuser.media.audio import read_audio, starts_too_late
from musicinfuser.media.errors import MediaError
from musicinfuser.media.latents import CacheError, ClipHeader
from musicinfuser.media.pictures import read_picture
from musicinfuser.setting_checks import check_file, check_number

AUDIO_SUFFIXES = (
    *(".wav", ".mp3", ".flac", ".ogg", ".oga", ".m4a", ".aac", ".opus", ".wma", ".aif", ".aiff"),
    *(".ac3", ".mp2", ".mka", ".caf"),
)
HELD_OUT = "held_out"
OTHER_TRACK = "another track"
HEARD = (SILENCE, NO_AUDIO, OTHER_TRACK)


@dataclass(frozen=True)
class RequestsSpec:
    """Every combination of tracks, prompts, seeds and sounds is a clip, or every line of a list."""

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
    """Frames per clip, of Mochi 6k + 1, if not those of the training clips (authors' code: 145)."""
    num_seconds: float | None = None
    """Instead of frames: seconds per clip, however many, sampled in overlapping windows
    (``model.sampling``); ``.inf`` is all of each track, and no clip outlasts its track."""
    requests: list[str] | str | None = None
    """Instead of music, prompts and seeds: a csv file with one clip per line, or several, as
    `read_requests` reads them. What a line leaves empty is ``track_offset_seconds`` and
    ``num_frames`` or ``num_seconds`` of here."""
    tempo: TempoSpec | None = None
    """Every track at several tempi, each clip from the same moment of the music."""
    heard: list[float | str] = field(default_factory=lambda: [0.0])
    """The audio conditioning, a clip for each: a number is the track so many seconds late (from an
    earlier start), ``silence`` a silent sound, ``another track`` the next one of the music that is
    another piece, ``nothing`` the model without its audio layers. The clips keep the sound of their
    track."""
    image: str | None = None
    """A picture that every clip begins with, of a backbone that can (``wan_5b``): its largest box
    of the clip's aspect, from the middle, resized. In a list a column ``image`` names it."""
    finished: FinishedSpec | None = None
    """Leave out clips that are complete in a folder, so that a command that was cut off goes on."""


def make_requests(
    spec: RequestsSpec,
    *,
    num_frames: int,
    height: int,
    width: int,
    fps: float = 30.0,
    geometry: LatentGeometry = MOCHI,
) -> list[GenerationRequest]:
    """All requests: tracks outermost, or in the order of the list.

    Raises:
        UserError: No prompt or seed, a file that does not exist, a size the backbone cannot take,
            settings that exclude each other, or a list that cannot be read.
        MediaError: A track whose length is needed cannot be read.
    """
    if spec.num_seconds is not None:
        every = ", or .inf for all of each track"
        check_number(
            "data.generation.num_seconds",
            spec.num_seconds,
            above=0,
            may_be_infinite=True,
            hint=every,
        )
        _refuse_both(
            f"data.generation.num_seconds is {spec.num_seconds:g}", spec, "num_frames", "tempo"
        )
    if spec.num_frames is not None:
        num_frames = spec.num_frames
    check_clip_size(num_frames, height, width, geometry=geometry)
    if spec.image is not None:
        check_file("data.generation.image", spec.image)
        check_takes_image(geometry, f"data.generation.image is {spec.image}")
    blank = GenerationRequest(
        "music",
        "",
        0,
        num_frames=num_frames,
        height=height,
        width=width,
        track_offset_seconds=spec.track_offset_seconds,
        image=spec.image,
    )
    if spec.requests is not None:
        _refuse_both(
            "data.generation.requests lists what to make",
            spec,
            *("music", "music_dir", "prompts", "seeds", "tempo", "heard"),
        )
        lists = [spec.requests] if isinstance(spec.requests, str) else spec.requests
        return read_requests(lists, blank, num_seconds=spec.num_seconds, fps=fps, geometry=geometry)
    prompts, tracks = _prompts(spec.prompts), _tracks(spec)
    starts: Sequence[tuple[Path, float | None]]
    starts = [(track, spec.track_offset_seconds) for track in tracks]
    if spec.tempo is not None:
        _refuse_both("data.generation.tempo changes the sounds", spec, "heard")
        starts = spec.tempo.starts(tracks, offset_seconds=spec.track_offset_seconds)
    for name in ("seeds", "heard"):
        if not getattr(spec, name):
            raise UserError(f"data.generation.{name} is empty; name at least one.")
    others = _next_pieces(tracks) if OTHER_TRACK in spec.heard else {}
    requests = []
    for track, start_seconds in starts:
        own = replace(blank, track=str(track), track_offset_seconds=start_seconds)
        if spec.num_seconds is not None:
            seconds = spec.num_seconds
            frames = frames_of(own, num_seconds=seconds, fps=fps, geometry=geometry)
            own = replace(own, num_frames=frames, in_windows=True)
        sounds = [own]
        if spec.heard != RequestsSpec().heard:
            sounds = [replace(own, **_heard(sound, own, others.get(track))) for sound in spec.heard]
        requests += [
            replace(sound, prompt=p, seed=seed)
            for p in prompts
            for seed in spec.seeds
            for sound in sounds
        ]
    for request, number in Counter(requests).items():
        if number > 1:
            raise UserError(
                f"data.generation asks {number} times for the clip of {request.track} with seed "
                f"{request.seed} and {request.prompt!r}; name each of music, prompts, seeds, heard "
                "and tempo.factors once."
            )
    return requests


def _next_pieces(tracks: Sequence[Path]) -> dict[Path, Path]:
    """For each track the next one with another piece of music; none for tracks that have no other.

    Recordings whose names hold one code of AIST's music play one piece; so do equal files.
    """
    pieces = [music_code(track.name) or file_digest(track) for track in tracks]
    found = {}
    for number, track in enumerate(tracks):
        for k in (*range(number + 1, len(tracks)), *range(number)):
            if pieces[k] != pieces[number]:
                found[track] = tracks[k]
                break
    return found


def _heard(sound: float | str, own: GenerationRequest, other: Path | None) -> dict[str, Any]:
    """What one of `RequestsSpec.heard` changes in a request; ``other`` is another track."""
    if sound == OTHER_TRACK:
        if other is None:
            raise UserError(
                f"data.generation.heard names {OTHER_TRACK}, but data.generation.music holds only "
                f"the music of {own.track}; name a track with another piece."
            )
        return {"heard": str(other)}
    if sound in HEARD:
        return {"heard": sound}
    if isinstance(sound, str):
        raise UserError(
            f"data.generation.heard holds {sound!r}; give seconds or one of {', '.join(HEARD)}."
        )
    if not sound:
        return {}
    start = own.track_offset_seconds
    if start is None or start < sound:
        raise UserError(
            f"data.generation.heard asks for sound {sound:g} s late, which starts so much earlier "
            f"in the track; give data.generation.track_offset_seconds a number from {sound:g} on."
        )
    # Decimal fractions, which a difference of floats is not.
    return {"heard": own.track, "heard_offset_seconds": round(start - sound, 6)}


def _refuse_both(given: str, spec: RequestsSpec, *names: str) -> None:
    """Refuse settings that have no effect beside another one."""
    untouched = RequestsSpec()
    for name in names:
        if getattr(spec, name) != getattr(untouched, name):
            raise UserError(
                f"{given}, but data.generation.{name} is given too; leave one of them out."
            )


def write_tempi(spec: RequestsSpec) -> None:
    """Write the tracks at other tempi that `make_requests` names, if it names any.

    Raises:
        MediaError: A track cannot be read.
    """
    if spec.tempo is not None:
        spec.tempo.write(_tracks(spec))


def require_sounds(requests: Sequence[GenerationRequest]) -> None:
    """Refuse to start with a sound that cannot be read, be it a track or what replaces it.

    A tenth of a second of each file is decoded, where clips start: one that breaks off later
    passes.

    Raises:
        MediaError: How many cannot be read or end before a clip starts, and what is wrong with the
            first.
    """
    files: dict[str, set[float]] = {}
    for request in requests:
        start = request.track_offset_seconds or 0.0
        files.setdefault(request.track, set()).add(start)
        if request.heard_file is not None:
            own = request.heard_offset_seconds
            files.setdefault(request.heard_file, set()).add(start if own is None else own)
    errors = []
    for file, starts in files.items():
        try:
            for start in sorted({0.0, max(starts)}):
                if not len(read_audio(file, start_seconds=start, duration_seconds=0.1)):
                    raise starts_too_late(file, seconds_of(file), start)
        except MediaError as error:
            errors.append(error)
    if errors:
        several = f"{len(errors)} of {len(files)} sounds cannot be used; the first: "
        raise MediaError(f"{several if len(errors) > 1 else ''}{errors[0]}")


def require_pictures(requests: Sequence[GenerationRequest]) -> None:
    """Refuse to start with a picture that cannot be read.

    Raises:
        MediaError: What is wrong with the first.
    """
    asked = {(r.image, r.height, r.width) for r in requests if r.image is not None}
    for image, height, width in sorted(asked):
        read_picture(image, height=height, width=width)


def _prompts(prompts: list[str] | str) -> list[str]:
    if isinstance(prompts, str):
        path = Path(prompts)
        hint = "; give a yaml file with a list under `prompts`, or a list like ['a dance video']"
        check_file("data.generation.prompts", path, hint=hint)
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
    for track in tracks:
        check_file("data.generation.music", track)
    return tracks


def held_out_tracks(folder: Path) -> list[Path]:
    """One file per held-out track: an audio file named by its code, else a video that plays it.

    Raises:
        UserError: A track of the ten is not there; names all that are missing.
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
            played = (music_of(name) or ()) if name else ()
            if len(played) == 1:
                by_code.setdefault(played[0], path)
    by_code |= {path.stem: path for path in files if path.suffix.lower() in AUDIO_SUFFIXES}
    codes = sorted(tables().held_out_music)
    missing = [code for code in codes if code not in by_code]
    if missing:
        raise UserError(
            f"{folder} has no file for the held-out tracks {', '.join(missing)}; name audio files "
            "by their code (mBR0.wav) or give a folder of AIST videos."
        )
    return [by_code[code] for code in codes]


def held_out_requests(headers: Sequence[ClipHeader], num_clips: int) -> list[GenerationRequest]:
    """Requests to watch a training by: pieces of music that it is never trained on, spread evenly.

    A request takes the sound of the video that a clip was cut from, from where it was cut, with the
    clip's caption and size; its seed is 0. A second clip of a piece is taken only where there are
    fewer pieces than requests. There are at most ``num_clips``.

    Raises:
        CacheError: No clip is held out, or no video of one is where the cache says.
    """
    held_out = [header for header in headers if header.split == "held_out"]
    if not held_out:
        raise CacheError("the cache holds no clip of held-out music")
    usable = [header for header in held_out if _has_sound(header)]
    if not usable:
        first = held_out[0].attributes.get("file") or "its header names none"
        raise CacheError(
            f"of {len(held_out)} clips of held-out music the video is not where the cache says "
            f"({held_out[0].clip_id}: {first})"
        )
    pieces: dict[str, ClipHeader] = {}
    for header in usable:
        pieces.setdefault(header.piece, header)
    firsts = list(pieces.values())
    num_firsts = min(num_clips, len(firsts))
    chosen = [firsts[i * len(firsts) // num_firsts] for i in range(num_firsts)]
    chosen += [header for header in usable if header not in chosen][: num_clips - num_firsts]
    return [
        GenerationRequest(
            track=header.attributes["file"],
            prompt=header.caption,
            seed=0,
            num_frames=header.recipe.num_frames,
            height=header.recipe.height,
            width=header.recipe.width,
            track_offset_seconds=float(header.attributes["start_seconds"]),
        )
        for header in chosen
    ]


def _has_sound(header: ClipHeader) -> bool:
    """Whether the file is there; whether its sound can be read shows when it is decoded."""
    file, start = (header.attributes.get(name, "") for name in ("file", "start_seconds"))
    try:
        return Path(file).is_file() and 0 <= float(start) < float("inf")
    except (OSError, ValueError):
        return False
