"""Encoded clips for training and for validation."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.aist_names import tables
from datamodules.batch import ClipItem
from datamodules.mixing import SampleKey, permutation
from musicinfuser.clip_size import ClipShape, LatentGeometry, latent_shape, names_of
from musicinfuser.keyed_random import uniform
from musicinfuser.media.latents import (
    CacheError,
    ClipHeader,
    caption_path,
    captions_missing,
    read_caption,
    read_clip,
)
from musicinfuser.media.masks import mask_path, read_mask
from musicinfuser.safetensors_files import WeightsFileError, read_header


def clips_to_train_on(headers: list[ClipHeader]) -> dict[str, list[ClipHeader]]:
    """The clips of the split ``train`` by source; AIST's held-out music never is among them."""
    held_out = tables().held_out_music
    clips: dict[str, list[ClipHeader]] = {}
    for header in headers:
        is_test_music = header.source == "aist" and header.music in held_out  # Table 7
        if header.split == "train" and not is_test_music:
            clips.setdefault(header.source, []).append(header)
    return clips


def bucket_names(clips: dict[str, list[ClipHeader]]) -> dict[str, list[str]]:
    """The bucket of each clip of each source, by name."""
    names = iter(names_of(header.shape for own in clips.values() for header in own))
    return {source: list(islice(names, len(own))) for source, own in clips.items()}


def share_of(clips: list[ClipHeader], share: float, *, source: str, seed: int) -> list[ClipHeader]:
    """A share of a source's clips, drawn by the seed, in their order; at least one."""
    if share == 1:
        return clips
    order = permutation(seed, f"share of {source}", 0, len(clips))
    return [clips[i] for i in sorted(order[: max(1, round(share * len(clips)))])]


class TrainingClips(Dataset[ClipItem]):
    """Clips of several sources, looked up by `SampleKey`.

    One draw per sample says what it lacks: its text with probability ``caption_dropout`` (section
    4.5), its music with ``music_dropout``, both with ``both_dropout`` (SingDance, arXiv
    2608.16220), else nothing. A text is the source's base prompt with ``base_prompt_probability``,
    else the clip's own caption. ``with_masks`` gives each clip its mask, zeros where it has none.
    """

    def __init__(
        self,
        clips: dict[str, list[ClipHeader]],
        *,
        cache_dir: str | Path,
        caption_dropout: float,
        base_prompt_probability: float,
        seed: int,
        music_dropout: float = 0.0,
        both_dropout: float = 0.0,
        with_masks: bool = False,
    ) -> None:
        self.clips, self.with_masks = clips, with_masks
        self.cache_dir = Path(cache_dir)
        self.caption_dropout = caption_dropout
        self.music_dropout, self.both_dropout = music_dropout, both_dropout
        self.base_prompt_probability = base_prompt_probability
        self.seed = seed
        check_captions(self.cache_dir, [h for headers in clips.values() for h in headers])

    def __getitem__(self, key: SampleKey) -> ClipItem:
        """The clip of ``key``, with the caption drawn for its sample index."""
        header = self.clips[key.source][key.index]
        caption = self.caption(header, key.sample_index)
        item = _item(header, key.sample_index, caption, cache_dir=self.cache_dir)
        mask = None
        if self.with_masks:
            mask = clip_mask(header, self.cache_dir, item.latent_mean.shape[1:])
        return replace(item, music_weight=self.music_weight(key.sample_index), mask=mask)

    def caption(self, header: ClipHeader, sample_index: int) -> str:
        """The caption a sample shows; empty if dropped."""
        if "text" in self.lacks(sample_index):
            return ""
        if self._draw(sample_index, "base prompt") < self.base_prompt_probability:
            return header.base_caption
        return header.caption

    def music_weight(self, sample_index: int) -> float | None:
        """0 for a sample that lacks its music, else 1; None if no sample ever does."""
        if not self.music_dropout + self.both_dropout:
            return None
        return float("music" not in self.lacks(sample_index))

    def lacks(self, sample_index: int) -> set[str]:
        """What was drawn for a sample to be dropped: ``text``, ``music``, both or neither."""
        # The draw that always decided about the text: with these options at 0, all stays as it was.
        drawn, end = self._draw(sample_index, "caption dropout"), 0.0
        for share, parts in (
            (self.caption_dropout, {"text"}),
            (self.music_dropout, {"music"}),
            (self.both_dropout, {"text", "music"}),
        ):
            end += share
            if drawn < end:
                return parts
        return set()

    def _draw(self, sample_index: int, purpose: str) -> float:
        return uniform(self.seed, [sample_index], purpose).item()


class ValidationClips(Dataset[ClipItem]):
    """Held-out clips, each with its own caption, its own music and another clip's.

    The other clip may have another size, and more frames: its sound is cut to the clip's length.
    """

    def __init__(self, clips: Sequence[ClipHeader], *, cache_dir: str | Path) -> None:
        """Pair the clips.

        Raises:
            CacheError: A clip has no other to be compared with: of other music, and as long.
        """
        self.clips = list(clips)
        self.cache_dir = Path(cache_dir)
        self.partners = [self._partner(i) for i in range(len(self.clips))]
        check_captions(self.cache_dir, self.clips)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def batches(self, indices: Iterable[int], *, batch_size: int) -> list[list[int]]:
        """Cut a choice of clips into batches of one shape each, in the order they are given."""
        buckets: dict[ClipShape, list[int]] = {}
        for index in indices:
            buckets.setdefault(self.clips[index].shape, []).append(index)
        return [
            own[start : start + batch_size]
            for own in buckets.values()
            for start in range(0, len(own), batch_size)
        ]

    def __getitem__(self, index: int) -> ClipItem:
        """Clip ``index`` with the audio of the next clip that has other music."""
        header = self.clips[index]
        other = read_clip(self.clips[self.partners[index]].path)["audio"]
        return _item(header, index, header.caption, cache_dir=self.cache_dir, other_audio=other)

    def _partner(self, index: int) -> int:
        """The next clip with other music and at least as many frames."""
        own, number = self.clips[index], self.clips[index].recipe.num_frames
        as_long = 0
        for step in range(len(self.clips)):
            candidate = (index + step) % len(self.clips)
            if self.clips[candidate].recipe.num_frames >= number:
                as_long += 1
                if self.clips[candidate].piece != own.piece:
                    return candidate
        which = "" if as_long == len(self.clips) else f" of {number} frames or more"
        raise CacheError(
            f"all {as_long} validation clips{which} have the music {own.piece}; encode clips of at "
            f"least two held-out tracks{which and ', or raise data.max_validation_clips'}."
        )


def clips_without_mask(cache_dir: str | Path, clips: Sequence[ClipHeader]) -> list[ClipHeader]:
    """Those of some clips whose masks the cache does not hold."""
    return [h for h in clips if not mask_path(cache_dir, h.source, h.clip_id).is_file()]


def check_masks(
    cache_dir: str | Path, clips: Sequence[ClipHeader], geometry: LatentGeometry
) -> None:
    """Refuse masks that are broken, or of another shape than their clips; of files the headers.

    Raises:
        CacheError: Says how many, and the first.
    """
    wrong = []
    for clip in clips:
        path = mask_path(cache_dir, clip.source, clip.clip_id)
        if path.is_file():
            try:
                stored = read_header(path)["mask"].shape
            except (WeightsFileError, KeyError):
                stored = None
            if stored is None or tuple(stored) != latent_shape(*clip.shape, geometry=geometry)[1:]:
                wrong.append(path)
    if wrong:
        raise CacheError(
            f"{len(wrong)} masks are broken or of another shape than their clips, e.g. {wrong[0]}; "
            "delete them and run the encode job again."
        )


def clip_mask(header: ClipHeader, cache_dir: str | Path, shape: torch.Size) -> Tensor:
    """The mask of a clip with latents of a shape ``(T, H, W)``; zeros where it has none.

    Raises:
        CacheError: It is broken, or of another shape than the clip's latents.
    """
    path = mask_path(cache_dir, header.source, header.clip_id)
    mask = read_mask(path) if path.is_file() else torch.zeros(shape)
    if mask.shape != shape:
        raise CacheError(
            f"the mask {path} has the shape {tuple(mask.shape)}, its clip {tuple(shape)}; run the "
            "encode job again."
        )
    return mask


def check_captions(cache_dir: Path, clips: Sequence[ClipHeader]) -> None:
    """Refuse a cache that lacks the features of a caption that training may show."""
    if missing := captions_missing(cache_dir, clips):
        raise CacheError(
            f"{cache_dir} lacks the features of {len(missing)} captions, e.g. {missing[0]!r}; run "
            "the encode job again."
        )


@lru_cache(maxsize=4096)
def _features(cache_dir: Path, caption: str) -> Tensor:
    return read_caption(cache_dir, caption)


def _item(
    header: ClipHeader,
    sample_index: int,
    caption: str,
    *,
    cache_dir: Path,
    other_audio: Tensor | None = None,
) -> ClipItem:
    tensors = read_clip(header.path)
    if other_audio is not None:
        other_audio = other_audio[: len(tensors["audio"])]
    if caption or caption_path(cache_dir, "").is_file():
        text = _features(cache_dir, caption)
    else:
        # No tokens, of the width of any other caption.
        text = _features(cache_dir, header.base_caption)[:0]
    return ClipItem(
        sample_index=sample_index,
        clip_id=header.clip_id,
        latent_mean=tensors["latent_mean"],
        latent_logvar=tensors["latent_logvar"],
        audio=tensors["audio"],
        other_audio=other_audio,
        text=text,
        latents_mean=torch.tensor(header.recipe.latents_mean),
        latents_std=torch.tensor(header.recipe.latents_std),
        caption=caption,
        music=header.piece,
    )
