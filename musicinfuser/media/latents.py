"""The cache of encoded clips: one safetensors file per clip, one per distinct caption.

::

    cache/clips/<source>/<clip_id>.safetensors   latent_mean, latent_logvar, audio
    cache/captions/<hash of the text>.safetensors   features
    cache/captions/recipe.json                      which text encoder made them
    cache/outdated_clips.jsonl                      clips whose videos are gone or have changed

Every header says how the file was made (the recipe) and what it holds, so a cache made otherwise
is noticed before anything is trained on it. The encode job writes the list of outdated clips, and
training reads it: the videos need not be there. A clip is listed with the content of its video, so
one that has been encoded anew since counts again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from musicinfuser.atomic_files import write_json_lines, write_text
from musicinfuser.clip_size import ClipShape, ClipSize
from musicinfuser.errors import UserError, looked_for
from musicinfuser.label_files import LabelError, read_json, read_json_lines
from musicinfuser.safetensors_files import save_tensors

FORMAT_VERSION = 1
OUTDATED_LIST_NAME = "outdated_clips.jsonl"
GONE = "no longer in the folder: the video is gone"
REPLACED = "its video has changed: this clip is of the former one"


class CacheError(UserError):
    """The cache is missing, broken, or made another way than the config asks."""


@dataclass(frozen=True)
class EncodingRecipe:
    """Everything that decides what is in an encoded clip besides the media itself."""

    num_frames: int
    """Of this clip, as ``height`` and ``width``; all else is the same throughout a cache."""
    height: int
    width: int
    fps: float
    audio_channel: str
    """``mean`` or ``first``."""
    dtype: str
    """Type VAE and T5 ran in."""
    max_text_tokens: int
    vae: str
    """Fingerprint of the files, or the Hub id."""
    text_encoder: str
    audio_encoder: str
    latents_mean: tuple[float, ...]
    """Of the VAE's config, ``(C,)``."""
    latents_std: tuple[float, ...]
    """Of the VAE's config, divided by its scaling factor, ``(C,)``."""
    version: int = FORMAT_VERSION
    decoding: str = "plain"
    """How pictures were read, see `musicinfuser.media.colours.Decoding`; older files are plain."""

    def of_shape(self, num_frames: int, height: int, width: int) -> "EncodingRecipe":
        """The same for clips of another shape."""
        return replace(self, num_frames=num_frames, height=height, width=width)

    def differences(self, other: "EncodingRecipe") -> list[str]:
        """``key: mine, not theirs`` for each field that differs."""
        return not_as(asdict(self), asdict(other))


def not_as(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """``key: stored, not wanted`` for each of some values that is stored otherwise."""
    return [f"{k}: {stored.get(k)}, not {v}" for k, v in wanted.items() if stored.get(k) != v]


@dataclass(frozen=True)
class ClipHeader:
    """What a clip's file says about itself."""

    path: Path
    recipe: EncodingRecipe
    source: str
    clip_id: str
    caption: str
    base_caption: str
    music: str | None
    split: str
    attributes: dict[str, str]
    """Source file and its content, start, genre, camera, ...; text only."""

    @property
    def piece(self) -> str:
        """What tells pieces of music apart: AIST's code, else the video that the clip is of."""
        return self.music or self.attributes.get("file", self.clip_id)

    @property
    def size(self) -> ClipSize:
        """Height and width in pixels."""
        return self.recipe.height, self.recipe.width

    @property
    def shape(self) -> ClipShape:
        """Frames, height and width: the clip's bucket."""
        return self.recipe.num_frames, *self.size


@dataclass(frozen=True)
class OutdatedClip:
    """A clip that no longer counts, since its video is gone or another."""

    source: str
    clip_id: str
    file: str
    """The video it was made of."""
    file_blake2b: str | None
    """The content of that; None for clips from before this was noted."""
    reason: str

    @classmethod
    def of(cls, header: ClipHeader, reason: str) -> "OutdatedClip":
        """A stored clip with the reason why it does not count."""
        own = header.attributes
        file, content = own.get("file", ""), own.get("file_blake2b")
        return cls(header.source, header.clip_id, file, content, reason)

    @property
    def key(self) -> tuple[str, str, str | None]:
        """What a stored clip is recognised by."""
        return self.source, self.clip_id, self.file_blake2b


def clip_path(cache_dir: str | Path, source: str, clip_id: str) -> Path:
    """Where a clip's file lies."""
    return Path(cache_dir, "clips", source, f"{clip_id}.safetensors")


def captions_missing(cache_dir: str | Path, clips: Iterable[Any]) -> list[str]:
    """Captions and base captions of some clips whose features are not there, sorted."""
    texts = {text for clip in clips for text in (clip.caption, clip.base_caption) if text}
    return sorted(text for text in texts if not caption_path(cache_dir, text).is_file())


def caption_path(cache_dir: str | Path, caption: str) -> Path:
    """Where a caption's features lie; the same text is stored once."""
    digest = hashlib.blake2b(caption.encode(), digest_size=16).hexdigest()
    return Path(cache_dir, "captions", f"{digest}.safetensors")


def write_clip(
    header: ClipHeader, *, latent_mean: Tensor, latent_logvar: Tensor, audio: Tensor
) -> None:
    """Write one clip, whole or not at all.

    Args:
        header: Its path, recipe and description.
        latent_mean: ``(C, T, H, W)`` in VAE units.
        latent_logvar: ``(C, T, H, W)``.
        audio: ``(S, audio width)``.
    """
    description: dict[str, Any] = asdict(header)
    del description["path"], description["recipe"]
    recipe = asdict(header.recipe)
    # Plain clips are what they always were, for programs too that know no other.
    if recipe["decoding"] == "plain":
        del recipe["decoding"]
    save_tensors(
        {"latent_mean": latent_mean, "latent_logvar": latent_logvar, "audio": audio},
        header.path,
        metadata={
            "recipe": json.dumps(recipe),
            "clip": json.dumps(description, ensure_ascii=False),
        },
    )


def read_clip_header(path: str | Path) -> ClipHeader:
    """The header of a clip's file; the tensors are not read.

    Raises:
        CacheError: Not a clip of this format.
    """
    path = Path(path)
    with _one_error(f"{path} is not an encoded clip"):
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
        recipe = json.loads(metadata["recipe"])
        if recipe.get("version") != FORMAT_VERSION:
            raise CacheError(
                f"{path} has cache format {recipe.get('version')}, this program writes "
                f"{FORMAT_VERSION}; encode into a new folder."
            )
        recipe |= {key: tuple(recipe[key]) for key in ("latents_mean", "latents_std")}
        return ClipHeader(
            path=path, recipe=EncodingRecipe(**recipe), **json.loads(metadata["clip"])
        )


@contextmanager
def _one_error(problem: str) -> Iterator[None]:
    """Whatever a broken file raises in the block becomes a `CacheError`."""
    try:
        yield
    except (
        OSError, SafetensorError, KeyError, TypeError, AttributeError, json.JSONDecodeError
    ) as error:  # fmt: skip
        raise CacheError(
            f"{problem} ({type(error).__name__}: {error}); delete it and encode again."
        ) from error


def read_clip(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a clip: ``latent_mean``, ``latent_logvar``, ``audio``."""
    with _one_error(f"{path} cannot be read"):
        return load_file(path)


def check_caption_encoder(
    cache_dir: str | Path, recipe: EncodingRecipe, *, note: bool = True
) -> None:
    """Check which text encoder the captions of a cache come from.

    Args:
        cache_dir: The cache.
        recipe: What captions are, or were, encoded with.
        note: Whether to write it down where that was not done yet.

    Raises:
        CacheError: The stored captions were encoded otherwise.
        LabelError: The note cannot be read.
    """
    path = Path(cache_dir, "captions", "recipe.json")
    mine = {key: getattr(recipe, key) for key in ("text_encoder", "max_text_tokens", "dtype")}
    if not path.is_file():
        if note:
            write_text(path, json.dumps(mine) + "\n")
        return
    stored = read_json(path)
    if stored != mine:
        raise CacheError(
            f"the captions in {path.parent} were made otherwise "
            f"({'; '.join(not_as(stored, mine))}); encode into another folder, or delete "
            "this one."
        )


def write_caption(cache_dir: str | Path, caption: str, features: Tensor) -> None:
    """Store a caption's features ``(num_tokens, width)`` unless they are there."""
    path = caption_path(cache_dir, caption)
    if not path.is_file():
        save_tensors({"features": features}, path, metadata={"caption": caption})


def read_caption(cache_dir: str | Path, caption: str) -> Tensor:
    """A caption's features ``(num_tokens, width)``."""
    path = caption_path(cache_dir, caption)
    if not path.is_file():
        raise CacheError(
            f"the cache {cache_dir} has no features for the caption {caption!r}; run the encode "
            "job again."
        )
    with _one_error(f"{path}, the features of the caption {caption!r}, cannot be read"):
        return load_file(path)["features"]


def read_headers(cache_dir: str | Path) -> list[ClipHeader]:
    """All clips of a cache that count, sorted by source and clip id.

    Raises:
        CacheError: No clips, a broken file, or files made by different recipes, shapes aside.
        LabelError: The list of clips that do not count cannot be read.
    """
    every = [read_clip_header(path) for path in clip_paths(cache_dir)]
    headers, outdated = current_clips(cache_dir, every)
    if not headers:
        raise CacheError(
            f"{cache_dir} holds no clip that counts: all {len(outdated)} are named in "
            f"{OUTDATED_LIST_NAME}, since their videos are gone or have changed; encode again."
        )
    check_one_recipe(headers)
    return headers


def clip_paths(cache_dir: str | Path) -> list[Path]:
    """The files of all clips of a cache, sorted by source and clip id.

    Raises:
        CacheError: There are none.
    """
    paths = stored_clips(cache_dir)
    if not paths:
        raise CacheError(
            f"{cache_dir} holds no encoded clips"
            f"{looked_for(cache_dir)}; run `python train.py predict --config "
            "configs/encode.yaml` with your folders first."
        )
    return paths


def stored_clips(cache_dir: str | Path) -> list[Path]:
    """The files of all clips of a cache, sorted by source and clip id; there may be none."""
    folder = Path(cache_dir, "clips")
    # A killed encode job may leave a temporary file, whose name starts with a dot.
    return sorted(p for p in folder.glob("*/*.safetensors") if not p.name.startswith("."))


def check_one_recipe(headers: Sequence[ClipHeader]) -> None:
    """Refuse clips that were made by different recipes; their shapes may differ.

    Raises:
        CacheError: Names two files that differ, and in what.
    """
    for header in headers:
        differences = header.recipe.differences(headers[0].recipe.of_shape(*header.shape))
        if differences:
            raise CacheError(
                f"{header.path} and {headers[0].path} were encoded differently ("
                f"{'; '.join(differences)}); keep one kind per cache folder."
            )


def write_outdated(cache_dir: str | Path, clips: Sequence[OutdatedClip]) -> None:
    """Write the list of a cache; where there was none, nothing is written for no clip."""
    path = Path(cache_dir, OUTDATED_LIST_NAME)
    if clips or path.is_file():
        write_json_lines(path, map(asdict, clips))


def read_outdated(cache_dir: str | Path) -> list[OutdatedClip]:
    """The list of a cache; empty where there is none.

    Raises:
        LabelError: It cannot be read.
    """
    path = Path(cache_dir, OUTDATED_LIST_NAME)
    found = []
    for line, row in read_json_lines(path) if path.is_file() else ():
        try:
            found.append(OutdatedClip(**row))
        except TypeError:
            raise LabelError(
                path, "is no line of outdated clips; delete the file and encode again.", line
            ) from None
    return found


def current_clips(
    cache_dir: str | Path, headers: Sequence[ClipHeader]
) -> tuple[list[ClipHeader], list[OutdatedClip]]:
    """Those of a cache's clips that count, and those that do not.

    Raises:
        LabelError: The list cannot be read.
    """
    listed = {clip.key: clip for clip in read_outdated(cache_dir)}
    found = [(header, listed.get(OutdatedClip.of(header, "").key)) for header in headers]
    return [h for h, clip in found if clip is None], [clip for _, clip in found if clip is not None]
