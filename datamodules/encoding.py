"""EncodingDataModule: every clip that is not yet in the cache."""

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning.pytorch as L
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

from datamodules.cache_report import PICTURES_PER_GROUP, write_report
from datamodules.changed_videos import find_outdated, has_changed
from datamodules.clips import ClipSpec, RawClip, SkippedClip
from datamodules.cutting import ClipDataset
from datamodules.loader_processes import checked_number
from datamodules.summary import LeftOut, left_out_by_choice
from musicinfuser.clip_size import ClipSize, clip_sizes
from musicinfuser.errors import UserError, printable
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS
from musicinfuser.media.latents import (
    CacheError,
    ClipHeader,
    EncodingRecipe,
    OutdatedClip,
    caption_path,
    check_caption_encoder,
    clip_path,
    current_clips,
    read_clip_header,
    write_outdated,
)


def description_differences(header: ClipHeader, spec: ClipSpec) -> list[str]:
    """How a stored clip differs from the one that would be made now; its folder may have moved."""
    stored = header.attributes | {"caption": header.caption, "split": header.split}
    now = EncodingDataModule.cut_description(spec) | {"caption": spec.caption, "split": spec.split}
    return [
        f"{key}: {stored.get(key)}, not {value}"
        for key, value in now.items()
        if key != "file" and stored.get(key) != value
    ]


def captions_not_encoded(cache_dir: str, specs: list[ClipSpec]) -> list[str]:
    """The texts of some clips whose features are not in the cache, sorted."""
    captions = {spec.caption for spec in specs} | {spec.base_caption for spec in specs}
    return sorted(c for c in captions if c and not caption_path(cache_dir, c).is_file())


def _sized(recipe: EncodingRecipe, spec: ClipSpec) -> EncodingRecipe:
    return replace(recipe, height=spec.height, width=spec.width)


class EncodingDataModule(L.LightningDataModule):
    """Raw clips for `ClipEncoder`; clips that are in the cache are not read again."""

    def __init__(
        self,
        cache_dir: str,
        sources: list[Callable[[], ClipDataset]],
        *,
        num_frames: int,
        height: int,
        width: int,
        buckets: list[ClipSize] | None = None,
        fps: float = 30.0,
        audio_channel: str = "mean",
        decoding: str = "corrected",
        seed: int = 42,
        num_workers: int = 2,
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
    ) -> None:
        """Set up; folders are looked at in `setup`.

        Args:
            cache_dir: Where the cache goes or grows.
            sources: Datasets of raw clips, by class path; sizes, rate, channel, seed and time limit
                are given to each.
            num_frames: Frames per clip, 6k + 1.
            height: Pixels, where ``buckets`` is null.
            width: Pixels, where ``buckets`` is null.
            buckets: Heights and widths in place of the one size, e.g. ``[[480, 848], [848, 480]]``;
                each video takes the one whose aspect is nearest to its own.
            fps: Frame rate.
            audio_channel: ``mean`` of all channels, or the ``first`` (authors' code).
            decoding: ``corrected`` or ``plain`` (authors' code), see `CutSettings`.
            seed: Seed of clip starts and caption templates.
            num_workers: Processes that decode ahead.
            time_limit_seconds: When a video is given up, so that none can hold up the job.
        """
        super().__init__()
        self.sizes = clip_sizes(num_frames, height, width, buckets)
        if not sources:
            raise UserError("data.sources is empty; name at least one dataset of raw clips.")
        self.cache_dir = cache_dir
        self.sources = sources
        self.num_frames, self.height, self.width, self.fps = num_frames, height, width, fps
        self.buckets = buckets
        self.audio_channel, self.decoding = audio_channel, decoding
        self.seed = seed
        self.num_workers = checked_number(num_workers)
        self.time_limit_seconds = time_limit_seconds
        self.datasets: list[ClipDataset] = []
        self.folder_notes: list[str] = []
        self.outdated: list[OutdatedClip] = []
        """Clips in the cache whose videos are gone or have changed; known after `setup`."""
        self.num_of_unknown_videos = 0
        """Clips in the cache that do not say what their videos were."""
        self._recipe: EncodingRecipe | None = None

    def setup(self, stage: str) -> None:
        """Find the clips, check the cache against the recipe, and leave out what is there.

        Raises:
            CacheError: The cache holds clips made another way.
            ValueError: A folder that is missing, or holds nothing that can be cut.
        """
        self.datasets = [self.build(source) for source in self.sources]
        self.skipped: list[SkippedClip] = [s for d in self.datasets for s in d.skipped]
        self.folder_notes = [
            f"{data.source}: {note}" for data in self.datasets for note in data.notes
        ]
        assert self.trainer is not None
        recipe = self.recipe(self.trainer.lightning_module)
        check_caption_encoder(self.cache_dir, recipe)
        all_clips: ConcatDataset[RawClip | SkippedClip] = ConcatDataset(self.datasets)
        specs = [spec for dataset in self.datasets for spec in dataset.clips]
        missing = self.not_encoded(specs, recipe)
        self.outdated = find_outdated(self.cache_dir, self.datasets)
        if self.trainer.global_rank == 0:
            write_outdated(self.cache_dir, self.outdated)
        self.num_found = len(specs) - len(missing)
        self._missing_captions = captions_not_encoded(self.cache_dir, specs)
        self.missing = Subset(all_clips, missing)

    def not_encoded(self, specs: list[ClipSpec], recipe: EncodingRecipe) -> list[int]:
        """Which clips are to be encoded, as positions in ``specs``.

        They are not in the cache, or were made of a video that is another one now.

        Raises:
            ValueError: Two clips of one name.
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
        self.num_of_unknown_videos = 0
        for index, spec in enumerate(specs):
            path = clip_path(self.cache_dir, spec.source, spec.clip_id)
            if not path.is_file():
                missing.append(index)
                continue
            header = read_clip_header(path)
            differences = header.recipe.differences(_sized(recipe, spec))
            is_other_video = has_changed(header, spec.path)
            if is_other_video:
                missing.append(index)
            else:
                differences += description_differences(header, spec)
            self.num_of_unknown_videos += "file_blake2b" not in header.attributes
            if differences:
                raise CacheError(
                    f"{path} was made otherwise ({'; '.join(differences)}); give the first values "
                    "to go on with this cache, encode into another folder, or delete this one."
                )
        return missing

    def build(self, source: Callable[..., ClipDataset]) -> ClipDataset:
        """A dataset with the settings all sources share; its own may not contradict them."""
        shared = {
            "num_frames": self.num_frames,
            "height": self.height,
            "width": self.width,
            "buckets": self.buckets,
            "fps": self.fps,
            "audio_channel": self.audio_channel,
            "decoding": self.decoding,
            "seed": self.seed,
            "time_limit_seconds": self.time_limit_seconds,
        }
        if isinstance(source, partial):
            built = next(a for a in source.args if isinstance(a, type))
            defaults = inspect.signature(built).parameters
            # Sources of other people may be older than this setting.
            if "decoding" not in defaults:
                del shared["decoding"]
            for name, value in shared.items():
                own = source.keywords.get(name, value)
                if own not in (value, defaults[name].default):
                    raise UserError(
                        f"data.sources sets {name} to {own} for {built.__name__}, but it is shared "
                        f"by all sources and is {value}; set data.{name} instead."
                    )
        dataset = source(**shared)
        if "decoding" not in shared and dataset.settings.decoding != self.decoding:
            raise UserError(
                f"data.decoding is {self.decoding}, but {built.__name__} takes no such setting; "
                "let it take 'decoding' and hand it to CutSettings."
            )
        return dataset

    def missing_captions(self) -> list[str]:
        """This rank's share of the texts whose features are not stored."""
        assert self.trainer is not None
        return self._missing_captions[self.trainer.global_rank :: self.trainer.world_size]

    def predict_dataloader(self) -> DataLoader:
        """This rank's share of the missing clips, one per batch."""
        assert self.trainer is not None
        mine = range(self.trainer.global_rank, len(self.missing), self.trainer.world_size)
        return DataLoader(
            Subset(self.missing, mine), batch_size=1, collate_fn=list, num_workers=self.num_workers
        )

    def transfer_batch_to_device(
        self, batch: list[RawClip | SkippedClip], device: torch.device, dataloader_idx: int
    ) -> list[RawClip | SkippedClip]:
        """Leave clips where they are; each encoder takes what it needs."""
        return batch

    def recipe(self, module: L.LightningModule) -> EncodingRecipe:
        """How clips are made, with the module's encoders; `recipe_of` has a clip's own size."""
        if self._recipe is None:
            self._recipe = module.recipe(  # type: ignore[operator]
                num_frames=self.num_frames,
                height=self.height,
                width=self.width,
                fps=self.fps,
                audio_channel=self.audio_channel,
                decoding=self.decoding,
            )
        return self._recipe

    def recipe_of(self, spec: ClipSpec, module: L.LightningModule) -> EncodingRecipe:
        """How one clip is made."""
        return _sized(self.recipe(module), spec)

    @staticmethod
    def cut_description(spec: ClipSpec) -> dict[str, str]:
        """Where a clip was cut, as text for its header."""
        return {
            "file": printable(spec.path),
            "start_seconds": f"{spec.start_seconds:.6f}",
            "crop": spec.crop,
        }

    def left_out_by_choice(self) -> list[LeftOut]:
        """How many files were not selected, and how many shots give no clip."""
        return left_out_by_choice(self.datasets)

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
        notes = [*self.folder_notes]
        notes += [f"left out of training {clip.clip_id}: {clip.reason}" for clip in self.outdated]
        if self.num_of_unknown_videos:
            notes.append(
                f"{self.num_of_unknown_videos} clips in the cache do not say what their videos "
                "were (they were encoded by an earlier version); a change of those is not noticed."
            )
        return notes

    def report(self, *, pictures_per_group: int = PICTURES_PER_GROUP) -> str:
        """Write counts and thumbnails of the whole cache to its folder ``report``.

        Args:
            pictures_per_group: Clips shown of each source, genre, camera and split, and files of
                each reason for leaving them out; 0 writes no page.

        Returns:
            The counts, and where they are.
        """
        folder = Path(self.cache_dir, "report")
        text = write_report(self.cache_dir, folder, pictures_per_group=pictures_per_group)
        return f"{text}\nthe same with thumbnails: {folder}"
