"""DanceDataModule: encoded clips for training and validation, requests for generation."""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import ClipBatch, collate
from datamodules.cached_clips import (
    TrainingClips,
    ValidationClips,
    bucket_names,
    check_masks,
    clips_to_train_on,
    clips_without_mask,
    share_of,
)
from datamodules.finished_clips import unfinished
from datamodules.generation_requests import (
    RequestsSpec,
    held_out_requests,
    make_requests,
    require_pictures,
    require_sounds,
    write_tempi,
)
from datamodules.loader_processes import HostDataModule, outlive_first_signal
from datamodules.mixing import Mixture, StepIndexedBatches
from musicinfuser.clip_size import Bucket, check_clip_size, clip_shapes, geometry_of
from musicinfuser.errors import UserError
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.latents import (
    OUTDATED_LIST_NAME,
    CacheError,
    ClipHeader,
    EncodingRecipe,
    caption_path,
    check_caption_encoder,
    clip_paths,
    read_caption,
    read_headers,
)
from musicinfuser.setting_checks import check_number
from musicinfuser.setting_differences import differences


class DanceDataModule(HostDataModule):
    """AIST and in-the-wild clips, mixed exactly, from a cache of encoded clips.

    Training takes clips of the split ``train`` only, validation those of held-out music (Table 7)
    only; the encode job sets the split from the file name.
    """

    def __init__(
        self,
        cache_dir: str,
        *,
        num_frames: int,
        height: int,
        width: int,
        buckets: list[Bucket] | None = None,
        ratio: dict[str, int],
        batch_size: int,
        caption_dropout: float,
        base_prompt_probability: float,
        seed: int,
        fps: float = 30.0,
        validation_source: str | None = "aist",
        max_validation_clips: int | None = None,
        validation_batch_size: int = 1,
        num_workers: int = 2,
        training_share: float = 1.0,
        music_dropout: float = 0.0,
        both_dropout: float = 0.0,
        generation: RequestsSpec | None = None,
        family: str = "mochi",
    ) -> None:
        """Set up; nothing is read before `setup`.

        Args:
            cache_dir: Folder the encode job wrote.
            num_frames: Frames per clip, of Mochi 6k + 1 (section 5.1: about 2.5 s; authors' code:
                73), where ``buckets`` names none, and of what `predict` makes.
            height: Pixels (480) of the clips, unless there are ``buckets``, and of what `predict`
                makes.
            width: Pixels (848), likewise.
            buckets: Heights and widths of the clips, or frames, heights and widths, if the cache
                was encoded for several; all samples of an optimizer step have one.
            ratio: Whole-number share per source, e.g. ``{aist: 1, youtube: 1}``.
            batch_size: Samples per process and batch.
            caption_dropout: Share of samples without text alone (authors' code: 0.1).
            base_prompt_probability: Of samples with text, the share that show the source's base
                prompt (authors' code: 0.2).
            seed: Seed of order and captions.
            fps: Frame rate (30).
            validation_source: The source whose held-out clips validate; null for no validation.
            max_validation_clips: At most so many, spread evenly over the held-out clips.
            validation_batch_size: Samples per process and validation batch.
            num_workers: Loader processes; 0 loads in the training process.
            training_share: Share of each source's clips that training sees; smaller are in larger.
            music_dropout: Share of samples without music alone, ZICA off (authors: 0; SingDance,
                arXiv 2608.16220: 0.1).
            both_dropout: Share of samples without text and music (authors: 0; SingDance: 0.05).
            generation: What `predict` makes.
            family: As ``model.backbone.family``: which shapes clips can have.
        """
        super().__init__(num_workers)
        self.geometry = geometry = geometry_of(family)
        check_clip_size(num_frames, height, width, geometry=geometry)
        self.shapes = clip_shapes(num_frames, height, width, buckets, geometry=geometry)
        check_number("data.caption_dropout", caption_dropout, at_least=0, at_most=1)
        check_number("data.music_dropout", music_dropout, at_least=0, at_most=1)
        check_number("data.both_dropout", both_dropout, at_least=0, at_most=1)
        dropped = caption_dropout + music_dropout + both_dropout
        if dropped > 1 + 1e-9:
            raise UserError(
                "data.caption_dropout, data.music_dropout and data.both_dropout are shares of all "
                f"samples, but add up to {dropped:g}; make it at most 1."
            )
        check_number("data.base_prompt_probability", base_prompt_probability, at_least=0, at_most=1)
        check_number("data.training_share", training_share, above=0, at_most=1)
        check_number("data.batch_size", batch_size, at_least=1)
        check_number("data.validation_batch_size", validation_batch_size, at_least=1)
        all_or_none = ", or null for all (data.validation_source: null switches validation off)"
        check_number(
            "data.max_validation_clips", max_validation_clips, at_least=1, hint=all_or_none
        )
        self.cache_dir = cache_dir
        self.num_frames, self.height, self.width, self.fps = num_frames, height, width, fps
        self.ratio = ratio
        self.batch_size = batch_size
        self.caption_dropout = caption_dropout
        self.music_dropout, self.both_dropout = music_dropout, both_dropout
        self.base_prompt_probability = base_prompt_probability
        self.seed = seed
        self.validation_source = validation_source
        self.max_validation_clips = max_validation_clips
        self.validation_batch_size = validation_batch_size
        self.training_share = training_share
        self.generation = generation
        self.with_masks = False
        """Whether training clips bring their masks, see `use_masks`."""
        self.recipe: EncodingRecipe | None = None
        """How the cache was made; known once a training or validation stage is set up."""
        self._headers: list[ClipHeader] | None = None

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes as checkpoints hold them: with frames only where others than ``num_frames``.

        Checkpoints of runs on clips of one length have held them so before there were others.
        """
        return tuple(shape[shape[0] == self.num_frames :] for shape in self.shapes)

    def setup(self, stage: str) -> None:
        """Read the cache's headers and check them; for `predict`, the tracks and prompts.

        Raises:
            CacheError: No cache, a foreign one, or no clips for what is asked.
            UserError: A ratio that cannot be held, or requests that cannot be made.
        """
        if stage == "predict":
            self.requests = self._requests()
            return
        headers = self._read_cache()
        if stage == "fit":
            if self.trainer is not None and self.trainer.max_steps < 1:
                raise UserError(
                    "trainer.max_steps must be set: a run is counted in optimizer steps."
                )
            self.training_clips, self.mixture = self._training_clips(headers)
        self.validation_clips = self.choose_validation_clips(headers)

    def train_dataloader(self) -> DataLoader[ClipBatch]:
        """Batches from the trainer's current step to its last."""
        assert self.trainer is not None
        batches = StepIndexedBatches(self.mixture, batch_size=self.batch_size, trainer=self.trainer)
        return self._loader(self.training_clips, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[ClipBatch] | list:
        """This rank's validation clips, in a fixed order; empty without a validation source."""
        if self.validation_clips is None:
            return []
        # A rank without a clip would leave the others waiting for its metrics.
        num_clips, num_ranks = len(self.validation_clips), self.trainer.world_size  # type: ignore[union-attr]
        if num_clips < num_ranks:
            raise CacheError(
                f"there are {num_clips} clips to validate with, fewer than the {num_ranks} "
                "processes; encode more, or set data.validation_source to null."
            )
        batches = self.validation_clips.batches(
            self.share(range(num_clips)), batch_size=self.validation_batch_size
        )
        return self._loader(self.validation_clips, batch_sampler=batches)

    def predict_dataloader(self) -> DataLoader[list[GenerationRequest]]:
        """This rank's requests, one per batch."""
        requests: Any = self.share(self.requests)
        return DataLoader(requests, batch_size=1, collate_fn=list)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move tensors; requests stay."""
        return batch.to(device, non_blocking=True) if isinstance(batch, ClipBatch) else batch

    def _loader(self, dataset: Dataset, **arguments: object) -> DataLoader:
        return DataLoader(
            dataset,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=outlive_first_signal,
            pin_memory=self.trainer is not None
            and self.trainer.strategy.root_device.type == "cuda",
            **arguments,  # type: ignore[arg-type]
        )

    def _read_cache(self) -> list[ClipHeader]:
        if self._headers is None:
            headers = read_headers(self.cache_dir)
            num_outdated = len(clip_paths(self.cache_dir)) - len(headers)
            if num_outdated:
                rank_zero_info(
                    f"{num_outdated} clips of {self.cache_dir} are left out: their videos are gone "
                    f"or have changed ({OUTDATED_LIST_NAME} names them)."
                )
            recipe = headers[0].recipe
            self.check_shapes(headers)
            check_caption_encoder(self.cache_dir, recipe)
            self._headers, self.recipe = headers, recipe
        return self._headers

    def check_shapes(self, headers: list[ClipHeader]) -> None:
        """Refuse a cache of clips of other shapes than are asked for.

        Raises:
            CacheError: Names everything that differs.
        """
        recipe, shapes = headers[0].recipe, sorted({header.shape for header in headers})
        asked, stored = {"fps": self.fps}, {"fps": recipe.fps}
        first, named = 0, "[frames, height, width]"
        if all(len({frames for frames, *_ in every}) == 1 for every in (shapes, self.shapes)):
            asked["num_frames"], stored["num_frames"] = self.shapes[0][0], recipe.num_frames
            first, named = 1, "[height, width]"
        wrong = differences(asked, stored, where="cache")
        found, wanted = ([list(shape[first:]) for shape in s] for s in (shapes, self.shapes))
        if any(shape not in wanted for shape in found):
            several = " (several are named in data.buckets)" if len(found) > 1 else ""
            wrong.append(f"{named}: {found} in the cache, {wanted} in the config{several}")
        if wrong:
            raise CacheError(
                f"{self.cache_dir} was encoded for other clips ({'; '.join(wrong)}); change "
                "the config or encode into another folder."
            )

    def _share_of_clips(self, headers: list[ClipHeader]) -> dict[str, list[ClipHeader]]:
        return {
            source: share_of(own, self.training_share, source=source, seed=self.seed)
            for source, own in clips_to_train_on(headers).items()
        }

    def training_pieces(self) -> set[str]:
        """The music of the clips that are trained on.

        Raises:
            CacheError: There is no cache that can be read.
        """
        clips = self._share_of_clips(self._read_cache())
        return {h.piece for source, own in clips.items() if self.ratio.get(source) for h in own}

    def use_masks(self, headers: list[ClipHeader] | None = None, *, may_lack: bool) -> str:
        """Let training clips bring their masks along.

        Args:
            headers: Of the cache; None reads them.
            may_lack: Whether clips without a mask are trained on all the same.

        Returns:
            A sentence on such clips; empty where there are none.

        Raises:
            CacheError: There are some, and there may not be; or masks are broken.
        """
        self.with_masks = True
        clips = self._share_of_clips(self._read_cache() if headers is None else headers)
        used = [h for source, own in clips.items() if self.ratio.get(source) for h in own]
        lacking = clips_without_mask(self.cache_dir, used)
        check_masks(self.cache_dir, used, self.geometry)
        if not lacking:
            return ""
        said = f"{len(lacking)} of {len(used)} training clips of {self.cache_dir} have no mask"
        if not may_lack:
            raise CacheError(
                f"{said}, e.g. {lacking[0].clip_id}, but model.objective.mask is set: run the "
                "encode job with data.masks, or set model.objective.mask.unmasked to plain."
            )
        return f"{said}; all of their pixels count the same."

    def _training_clips(self, headers: list[ClipHeader]) -> tuple[TrainingClips, Mixture]:
        clips = self._share_of_clips(headers)
        trainer = self.trainer
        num_batches = trainer.accumulate_grad_batches * trainer.world_size if trainer else 1
        mixture = Mixture(
            bucket_names(clips),
            self.ratio,
            samples_per_step=self.batch_size * num_batches,
            seed=self.seed,
        )
        dataset = TrainingClips(
            {s: c for s, c in clips.items() if self.ratio.get(s)},
            cache_dir=self.cache_dir,
            caption_dropout=self.caption_dropout,
            music_dropout=self.music_dropout,
            both_dropout=self.both_dropout,
            base_prompt_probability=self.base_prompt_probability,
            seed=self.seed,
            with_masks=self.with_masks,
        )
        return dataset, mixture

    def choose_validation_clips(self, headers: list[ClipHeader]) -> ValidationClips | None:
        """The clips of held-out music that validate; None without a validation source.

        Raises:
            CacheError: There are none, or none with other music, or captions are missing.
        """
        if self.validation_source is None:
            return None
        clips = [h for h in headers if h.source == self.validation_source and h.split == "held_out"]
        if not clips:
            what, how = "clip of held-out music (Table 7)", "encode some"
            if self.validation_source != "aist":
                what, how = "held-out clip", "encode it with a held_out_fraction, such as 0.1"
            others = " or ".join(
                [*sorted({h.source for h in headers if h.split == "held_out"}), "null"]
            )
            raise CacheError(
                f"{self.cache_dir} holds no {self.validation_source} {what}, so nothing can "
                f"validate; {how}, or set data.validation_source to {others}."
            )
        limit = min(self.max_validation_clips or len(clips), len(clips))
        chosen = [clips[i * len(clips) // limit] for i in range(limit)]
        return ValidationClips(chosen, cache_dir=self.cache_dir)

    def held_out_requests(self, num_clips: int) -> dict[GenerationRequest, torch.Tensor]:
        """Requests of held-out clips with the features of their captions, ``(num_tokens, width)``.

        Raises:
            CacheError: There are none whose video is where the cache says, or features are missing.
        """
        requests = held_out_requests(self._read_cache(), num_clips)
        return {request: read_caption(self.cache_dir, request.prompt) for request in requests}

    def cached_text(self, text: str) -> torch.Tensor | None:
        """Features ``(num_tokens, width)`` of any text that the cache holds; else None."""
        return read_caption(self.cache_dir, text) if self.has_text(text) else None

    def has_text(self, text: str) -> bool:
        """Whether the cache holds a text's features."""
        return caption_path(self.cache_dir, text).is_file()

    def _requests(self) -> list[GenerationRequest]:
        """What `predict` makes, less what is finished; sounds are written and tried."""
        spec = self.generation
        if spec is None:
            raise UserError(
                "predict needs data.generation: what music, which prompts, which seeds, e.g. "
                "`--data.generation.music=[song.mp3] --data.generation.prompts=['a dance video']`."
            )
        size = {"num_frames": self.num_frames, "height": self.height, "width": self.width}
        requests = make_requests(spec, **size, fps=self.fps, geometry=self.geometry)
        write_tempi(spec)
        require_sounds(requests)
        require_pictures(requests)
        if spec.finished is None:
            return requests
        left = unfinished(requests, spec.finished)
        rank_zero_info(
            f"{len(requests) - len(left)} of {len(requests)} clips are finished in "
            f"{spec.finished.folder} and kept."
        )
        # Less may be left than there are processes.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        return left
