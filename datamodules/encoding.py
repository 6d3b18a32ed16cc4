"""EncodingDataModule: every clip and caption that is not yet in the cache."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, DataLoader, Subset

from datamodules.clips import ClipSpec, CutSettings, RawClip, SkippedClip
from datamodules.cutting import ClipDataset
from datamodules.loader_processes import HostDataModule
from datamodules.masks import MaskDataset, MaskSettings
from musicinfuser.clip_size import clip_shapes, geometry_of
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import FileIdentity
from musicinfuser.media.errors import printable
from musicinfuser.media.latents import (
    GONE,
    REPLACED,
    CacheError,
    ClipHeader,
    EncodingRecipe,
    OutdatedClip,
    caption_path,
    captions_missing,
    check_caption_encoder,
    clip_path,
    current_clips,
    not_as,
    read_clip_header,
    read_outdated,
    stored_clips,
    write_outdated,
)

Folder = tuple[str, str]
"""A source and the path of a folder."""


class EncodingDataModule(HostDataModule):
    """Captions and raw clips for `ClipEncoder`; what is in the cache is not read again."""

    def __init__(
        self,
        cache_dir: str,
        sources: list[Callable[[CutSettings], ClipDataset]],
        *,
        num_workers: int = 2,
        family: str = "mochi",
        masks: MaskSettings | None = None,
        **settings: Any,
    ) -> None:
        """Set up; folders are looked at in `setup`.

        Args:
            cache_dir: Where the cache goes or grows.
            sources: Datasets of raw clips, by class path.
            num_workers: Processes that decode ahead.
            family: Of the backbone that the clips are for: which shapes they can have.
            masks: Where masks of the videos are, for ``model.objective.mask``; null makes none.
            **settings: As `CutSettings` takes them, for all sources.
        """
        super().__init__(num_workers)
        self.settings = cut = CutSettings(**settings)
        self.geometry = geometry_of(family)
        self.shapes = clip_shapes(
            cut.num_frames, cut.height, cut.width, cut.buckets, geometry=self.geometry
        )
        if not sources:
            raise UserError("data.sources is empty; name at least one dataset of raw clips.")
        self.cache_dir = cache_dir
        self.sources, self.masks = sources, masks
        self.datasets: list[ClipDataset] = []
        self.missing_masks: MaskDataset | None = None
        # Less may be left than there are processes.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def setup(self, stage: str) -> None:
        """Find all clips.

        Raises:
            UserError: A folder that is missing, or holds nothing that can be cut.
        """
        self.datasets = [source(self.settings) for source in self.sources]

    def leave_out_encoded(
        self,
        recipe: EncodingRecipe,
        *,
        audio_rate_hz: int,
        audio_context_seconds: float = 0.0,
        more_captions: Sequence[str] = (),
    ) -> None:
        """Compare the cache with what would be encoded, and keep what is missing.

        Args:
            recipe: How clips are encoded.
            audio_rate_hz: Sampling rate of the sound that the encoder takes.
            audio_context_seconds: Sound that it takes from before and after a clip.
            more_captions: Texts to encode besides those of the clips.

        Raises:
            CacheError: The cache holds clips made another way.
            UserError: Two clips of one name.
        """
        check_caption_encoder(self.cache_dir, recipe)
        for dataset in self.datasets:
            dataset.audio_rate_hz = audio_rate_hz
            dataset.audio_context_seconds = audio_context_seconds
        specs = [spec for dataset in self.datasets for spec in dataset.clips]
        missing, self.num_of_unknown_videos = not_encoded(self.cache_dir, specs, recipe)
        self.num_found = len(specs) - len(missing)
        self.outdated = find_outdated(self.cache_dir, self.datasets)
        """Clips in the cache whose videos are gone or have changed."""
        if self.trainer is None or self.trainer.is_global_zero:
            write_outdated(self.cache_dir, self.outdated)
        self.captions = captions_missing(self.cache_dir, specs)
        if specs:
            more = [t for t in more_captions if not caption_path(self.cache_dir, t).is_file()]
            self.captions = [*more, *self.captions]
        clips: ConcatDataset[RawClip | SkippedClip] = ConcatDataset(self.datasets)
        self.missing = Subset(clips, missing)
        self.missing_masks = self.masks_to_make()

    def masks_to_make(self) -> MaskDataset | None:
        """The masks that the cache lacks; None where none are asked for."""
        if self.masks is None:
            return None
        return MaskDataset(
            self.datasets, self.masks, cache_dir=self.cache_dir, geometry=self.geometry
        )

    def predict_dataloader(self) -> DataLoader:
        """This rank's share of the missing captions, then clips, then masks, one per batch."""
        parts: list[Any] = [self.missing]
        if self.missing_masks is not None:
            parts.append(self.missing_masks)
        shares = [Subset(part, self.share(range(len(part)))) for part in parts]
        items: Any = ConcatDataset([self.share(self.captions), *shares])  # type: ignore[list-item]
        return DataLoader(items, batch_size=1, collate_fn=list, num_workers=self.num_workers)

    def list_outdated(self) -> int:
        """Write the list of clips that still do not count, once all have been encoded.

        Returns:
            How many count again, since they were encoded anew.
        """
        paths = [clip_path(self.cache_dir, clip.source, clip.clip_id) for clip in self.outdated]
        headers = [read_clip_header(path) for path in paths]
        before, (_, self.outdated) = len(headers), current_clips(self.cache_dir, headers)
        write_outdated(self.cache_dir, self.outdated)
        return before - len(self.outdated)

    def notes(self) -> list[str]:
        """What must be known of folders and cache besides what was left out, a line each."""
        notes = [f"{data.source}: {note}" for data in self.datasets for note in data.notes]
        notes += [f"left out of training {clip.clip_id}: {clip.reason}" for clip in self.outdated]
        if self.missing_masks is not None and (note := self.missing_masks.note()):
            notes.append(note)
        if self.num_of_unknown_videos:
            notes.append(
                f"{self.num_of_unknown_videos} clips in the cache do not say what their videos "
                "were (they were encoded by an earlier version); a change of those is not noticed."
            )
        return notes


def not_encoded(
    cache_dir: str, specs: list[ClipSpec], recipe: EncodingRecipe
) -> tuple[list[int], int]:
    """Which clips are to be encoded: not in the cache, or made of a video that is another one now.

    Returns:
        Their positions in ``specs``, and how many clips in the cache do not say what their videos
        were.

    Raises:
        UserError: Two clips of one name.
        CacheError: A clip in the cache was made otherwise.
    """
    names = Counter((spec.source, spec.clip_id) for spec in specs)
    twice = [clip_id for (_, clip_id), count in names.items() if count > 1]
    if twice:
        raise UserError(
            f"data.sources has {len(twice)} clips of the same name, e.g. {twice[0]}; one would "
            "overwrite the other, so give folders of one dataset as one root."
        )
    missing: list[int] = []
    num_of_unknown_videos = 0
    for index, spec in enumerate(specs):
        path = clip_path(cache_dir, spec.source, spec.clip_id)
        if not path.is_file():
            missing.append(index)
            continue
        header = read_clip_header(path)
        differences = header.recipe.differences(recipe.of_shape(*spec.shape))
        if has_changed(header, spec.path):
            missing.append(index)
        else:
            stored = header.attributes | {"caption": header.caption, "split": header.split}
            now = spec.cut | {"caption": spec.caption, "split": spec.split}
            del now["file"]  # the folder may have moved
            differences += not_as(stored, now)
        num_of_unknown_videos += "file_blake2b" not in header.attributes
        if differences:
            raise CacheError(
                f"{path} was made otherwise ({'; '.join(differences)}); give the first values "
                "to go on with this cache, encode into another folder, or delete this one."
            )
    return missing, num_of_unknown_videos


def has_changed(header: ClipHeader, video: Path) -> bool:
    """Whether a video is another one than a clip was made of, as far as the clip says."""
    identity = FileIdentity.from_attributes(header.attributes)
    return identity is not None and not identity.is_that_of(
        video, noted_ns=header.path.stat().st_mtime_ns
    )


def find_outdated(cache_dir: str | Path, datasets: Sequence[ClipDataset]) -> list[OutdatedClip]:
    """The clips of a cache that no longer count.

    A clip is judged if it comes from a folder of the datasets, or from one that was moved there,
    which shows by clips that are still cut from it. What an earlier job listed of other folders
    stays listed. A clip that is only not selected now counts: its video is there.

    Raises:
        CacheError: A clip's file is broken.
        LabelError: The list of an earlier job cannot be read.
    """
    headers = [read_clip_header(path) for path in stored_clips(cache_dir)]
    listed = {clip.key: clip for clip in read_outdated(cache_dir)}
    videos: dict[Folder, dict[str, Path]] = {}
    """Of each folder by their paths below it."""
    cut_now: dict[tuple[str, str], tuple[Path, Folder]] = {}
    for data in datasets:
        here = data.source, printable(data.root)
        videos[here] = {printable(path.relative_to(data.root)): path for path in data.videos}
        cut_now |= {(spec.source, spec.clip_id): (spec.path, here) for spec in data.clips}
    moved: dict[Folder, dict[str, Path]] = {}
    for header in headers:
        folder = _folder(header, videos)
        _, now = cut_now.get((header.source, header.clip_id), (None, None))
        if folder is not None and folder not in videos and now is not None:
            moved[folder] = moved.get(folder, {}) | videos[now]
    videos |= moved
    outdated = []
    for header in headers:
        folder = _folder(header, videos)
        path, _ = cut_now.get((header.source, header.clip_id), (None, None))
        if path is None and folder is not None and folder in videos:
            path = videos[folder].get(header.attributes["file"].removeprefix(f"{folder[1]}/"))
            if path is None:
                outdated.append(OutdatedClip.of(header, GONE))
                continue
        if path is None:
            outdated += [listed[key] for key in [OutdatedClip.of(header, "").key] if key in listed]
        elif has_changed(header, path):
            outdated.append(OutdatedClip.of(header, REPLACED))
    return outdated


def _folder(header: ClipHeader, known: Iterable[Folder]) -> Folder | None:
    """The folder a clip comes from; clips that do not say so may lie below a known one."""
    root, file = header.attributes.get("root"), header.attributes.get("file", "")
    if root is not None:
        return header.source, root
    below = (f for f in known if f[0] == header.source and file.startswith(f"{f[1]}/"))
    return next(below, None)
