"""AutoencoderModule: trains a small `AutoencoderKLMochi` for the small world."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMochi
from torch import Tensor

from musicinfuser import keyed_random
from small_world.parts.small_part import SmallPartModule

if TYPE_CHECKING:
    from small_world.data.frames import FrameBatch


# Clips per source from which the mean and spread of the latents are measured.
STATISTICS_CLIPS = 200


class AutoencoderModule(SmallPartModule):
    """VAE of the small world: L1 + L2 on pixels, their change in time, and a KL term.

    The term on temporal differences is what keeps reconstructions from flickering with the six
    frames of a latent.
    """

    part = "vae"
    validated = ("psnr",)
    vae: AutoencoderKLMochi

    def __init__(
        self,
        *args: Any,
        kl_weight: float = 3.0e-4,
        temporal_weight: float = 2.0,
        moving_weight: float = 5.0,
        **kwargs: Any,
    ) -> None:
        """Set up; all other arguments are those of `SmallPartModule`.

        Args:
            *args: See there.
            kl_weight: Per latent element.
            temporal_weight: Of the absolute error of frame differences.
            moving_weight: Extra weight of pixels that change within the piece.
            **kwargs: See there.
        """
        super().__init__(*args, **kwargs)
        self.kl_weight, self.temporal_weight = kl_weight, temporal_weight
        self.moving_weight = moving_weight

    def build(self) -> None:
        """The VAE."""
        self.vae = self.read_or_build(AutoencoderKLMochi)

    def training_step(self, batch: "FrameBatch", batch_idx: int) -> Tensor:
        """The loss of a batch of pieces."""
        pixels = to_pixels(batch.frames)
        posterior = self.vae.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * self._noise(batch, posterior.mean.shape)
        decoded = self.vae.decode(latents, return_dict=False)[0]
        weight = 1 + self.moving_weight * moving_pixels(pixels)
        error = decoded - pixels
        reconstruction = (weight * (error.abs() + error.square())).mean()
        change = (error[:, :, 1:] - error[:, :, :-1]).abs()
        temporal = (weight[:, :, 1:] * change).mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss = reconstruction + self.temporal_weight * temporal + self.kl_weight * kl
        values = {"loss": loss, "reconstruction": reconstruction, "temporal": temporal, "kl": kl}
        self.step_means.log(self, {f"train/{k}": v for k, v in values.items()})
        return loss

    def validation_step(self, batch: "FrameBatch", batch_idx: int) -> None:
        """Peak signal-to-noise ratio of held-out clips, through the posterior's mean."""
        pixels = to_pixels(batch.frames)
        decoded = self.vae.decode(self.vae.encode(pixels).latent_dist.mean, return_dict=False)[0]
        self.means[0](psnr(decoded.clamp(-1, 1), pixels))

    def export(self) -> None:
        """Measure the latents' mean and spread on training clips, and write the VAE."""
        # As many of each source, since that is how the sources are mixed later.
        by_source = self.trainer.datamodule.training_clips  # type: ignore[attr-defined]
        spread = [c[:: max(len(c) // STATISTICS_CLIPS, 1)][:STATISTICS_CLIPS] for c in by_source]
        mean, std = self.latent_statistics([clip for clips in spread for clip in clips])
        # Not where a warm start was read from.
        self.vae.register_to_config(
            latents_mean=mean.tolist(),
            latents_std=std.tolist(),
            scaling_factor=1.0,
            _name_or_path="",
        )
        self.vae.save_pretrained(Path(self.export_dir, "vae"))

    @torch.no_grad()
    def latent_statistics(self, clips: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and spread per channel, ``(C,)`` each, of the posterior's samples."""
        self.vae.eval()
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for clip in clips:
            posterior = self.vae.encode(to_pixels(clip[None].to(self.device))).latent_dist
            mean = posterior.mean.double().cpu()
            second = mean.square() + posterior.var.double().cpu()
            count += mean[0, 0].numel()
            total = total + mean.sum(dim=(0, 2, 3, 4))
            squares = squares + second.sum(dim=(0, 2, 3, 4))
        mean = total / count
        return mean, (squares / count - mean.square()).sqrt()

    def _noise(self, batch: "FrameBatch", shape: Any) -> Tensor:
        return keyed_random.normal(
            self.seed, batch.sample_index, "posterior", shape[1:], device=self.device
        )


def to_pixels(frames: Tensor) -> Tensor:
    """``(B, T, H, W, 3)`` uint8 to ``(B, 3, T, H, W)`` in [-1, 1]."""
    return frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def moving_pixels(pixels: Tensor, *, threshold: float = 0.1) -> Tensor:
    """``(B, 1, T, H, W)``, 1 where a pixel or a neighbour differs from its median in time."""
    still = pixels.median(dim=2, keepdim=True).values
    moving = ((pixels - still).abs().amax(dim=1, keepdim=True) > threshold).float()
    return F.max_pool3d(moving, kernel_size=(1, 3, 3), stride=1, padding=(0, 1, 1))


def psnr(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Per clip, ``(B,)``, in dB, for pixels in [-1, 1]."""
    error = (decoded - pixels).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(4 / error)
