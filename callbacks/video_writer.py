"""VideoWriter: what `predict` generates goes to disk, clip by clip."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import BasePredictionWriter

from musicinfuser.generation import OUTPUT_RATE_HZ, GeneratedClip, SamplingSpec
from musicinfuser.media.audio import SILENCE_DBFS, loudness_dbfs
from musicinfuser.media.generated import ManifestEntry, write_generated, write_manifest

if TYPE_CHECKING:
    from lightning_modules.music_infuser import MusicInfuserModule


def write_clip(
    folder: Path, clip: GeneratedClip, *, sampling: SamplingSpec, system: str
) -> ManifestEntry:
    """Write one generated clip with its description and return the latter.

    What hears something else than its track is a system of its own, so that no table averages it
    with the rest.
    """
    request = clip.request
    assert request.track_offset_seconds is not None
    entry = ManifestEntry(
        file=f"{request.file_stem()}.mp4",
        system=", ".join(filter(None, (system, request.control))),
        track=request.track,
        track_offset_seconds=request.track_offset_seconds,
        prompt=request.prompt,
        seed=request.seed,
        num_frames=request.num_frames,
        fps=clip.fps,
        height=request.height,
        width=request.width,
        num_steps=sampling.num_steps,
        guidance_scale=sampling.guidance_scale,
        music_guidance_scale=sampling.music_guidance_scale,
        padded_seconds=clip.padded_seconds,
        heard=request.heard,
        heard_offset_seconds=request.heard_offset_seconds,
        in_windows=request.in_windows,
        **({} if clip.windows is None else _window_settings(sampling)),
    )
    write_generated(
        folder,
        entry,
        frames=clip.frames if clip.windows is None else chain([clip.frames], clip.more_frames),
        waveform=clip.waveform,
        audio_rate_hz=OUTPUT_RATE_HZ,
    )
    return entry


def _window_settings(sampling: SamplingSpec) -> dict[str, Any]:
    return {
        "window_frames": sampling.window_frames,
        "window_overlap_frames": sampling.window_overlap_frames,
        "window_noise": sampling.window_noise,
    }


class VideoWriter(BasePredictionWriter):
    """Writes an mp4 with sound and a description per request, and a manifest at the end."""

    def __init__(self, output_dir: str | None = None, system: str = "musicinfuser") -> None:
        """Choose the folder.

        Args:
            output_dir: Where clips go; ``<trainer.default_root_dir>/videos`` if absent.
            system: Name of the row in tables; ``, hears another track`` or ``, hears nothing`` is
                added for requests that do.
        """
        super().__init__(write_interval="batch")
        self.output_dir = output_dir
        self.system = system
        self._num_written = 0

    def folder(self, trainer: L.Trainer) -> Path:
        """Where clips go."""
        return Path(self.output_dir or Path(trainer.default_root_dir, "videos"))

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the clips of a batch; anything else is not ours."""
        for clip in prediction:
            if not isinstance(clip, GeneratedClip):
                continue
            module: MusicInfuserModule = pl_module  # type: ignore[assignment]
            write_clip(self.folder(trainer), clip, sampling=module.sampling, system=self.system)
            self._num_written += 1
            if clip.padded_seconds:
                sounds = filter(None, (clip.request.track, clip.request.heard_file))
                trainer.print(
                    f"{' or '.join(sounds)} ends before the clip does: {clip.padded_seconds:.2f} s "
                    "of silence were added."
                )
            if loudness_dbfs(clip.waveform) < SILENCE_DBFS:
                trainer.print(
                    f"{clip.request.track} is silent from second "
                    f"{clip.request.track_offset_seconds:.2f} on for the whole clip; choose "
                    "another start if that is not meant."
                )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Collect the manifest once all ranks are done, also if there was nothing to do."""
        if stage != "predict":
            return
        trainer.strategy.barrier("clips written")
        # Another rank, or an earlier command that was cut off, may have written all there is.
        is_any = self._num_written or any(self.folder(trainer).glob("*.mp4"))
        if is_any and trainer.is_global_zero:
            manifest = write_manifest(self.folder(trainer))
            num_clips = len(manifest.read_text().splitlines())
            trainer.print(f"{num_clips} clips are listed in {manifest}")
