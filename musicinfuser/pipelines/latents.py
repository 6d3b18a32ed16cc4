"""Latents from the noise to what a call gives, at once or a piece at a time."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musicinfuser.diffusion.windows import Windows
from musicinfuser.latent_space import denormalise
from musicinfuser.memory.out_of_memory import named_out_of_memory
from musicinfuser.pipelines.model_offload import send_away

DECODING_REMEDY = "call pipe.vae.enable_tiling(), with several videos also enable_slicing()"


class Latents:
    """What a pipeline starts from, and what it makes of it with its VAE."""

    def decode_pieces(self: Any, latents: Tensor) -> Iterator[Tensor]:
        """Frames of long videos, a second or so at a time: none has to be held whole.

        Args:
            latents: ``(B, C, T, H, W)`` of a call with ``output_type="latent"``, anywhere.

        Yields:
            ``(B, num_frames, H, W, 3)`` uint8 on the CPU; together all frames, without seams.

        Raises:
            OutOfMemoryError: The device's memory is too small; says what to call.
        """
        for pixels in self._pieces(latents):
            scaled = ((pixels.float() + 1) * 127.5).round().clamp(0, 255)
            yield scaled.to(torch.uint8).permute(0, 2, 3, 4, 1).cpu()
        self.maybe_free_model_hooks()

    def _noise(
        self: Any,
        shape: Sequence[int],
        generator: Any,
        given: Tensor | None,
        windows: Windows | None,
    ) -> Tensor:
        """``shape`` fp32 on the device, or in windows on the host."""
        device = self._execution_device
        batch, channels, num_latents, height, width = shape
        geometry = self.kind.geometry
        side = geometry.spatial
        drawn_on = device
        if windows is not None:
            num_latents = windows.num_drawn if given is None else num_latents
            device = drawn_on = torch.device("cpu")
            first = generator[0] if isinstance(generator, list) else generator
            # One on the device cannot draw elsewhere.
            drawn_on = device if first is None else first.device
        noise = self.prepare_latents(
            batch, channels, side * height, side * width,
            geometry.temporal * (num_latents - 1) + 1, torch.float32, drawn_on, generator, given,
        ).to(device)  # fmt: skip
        return noise if windows is None or given is not None else windows.noise(noise)

    def _first_frames(self: Any, pictures: Tensor, num_videos: int) -> Tensor:
        """Latents ``(B, C, 1, h, w)`` of pictures ``(num_prompts, H, W, 3)``, for every video."""
        first = self.kind.vae.first_latents(self.vae, pictures.to(self._execution_device))
        send_away(self.vae)  # until it decodes
        return first.repeat_interleave(num_videos, dim=0)

    def _decode(self: Any, latents: Tensor, output_type: str, *, in_pieces: bool) -> Any:
        """All frames, as diffusers' pipelines give them."""
        process = self.video_processor.postprocess_video
        if not in_pieces:
            with named_out_of_memory("decoding the latents", DECODING_REMEDY):
                return process(self._pixels(latents), output_type=output_type)
        parts = []
        for pixels in self._pieces(latents):
            part = process(pixels, output_type=output_type)
            parts.append(part.cpu() if output_type == "pt" else part)
        if output_type == "pt":
            return torch.cat(parts, dim=1)
        if output_type == "np":
            return np.concatenate(parts, axis=1)
        return [[image for part in parts for image in part[i]] for i in range(len(latents))]

    def _pieces(self: Any, latents: Tensor) -> Iterator[Tensor]:
        device = self._execution_device
        with named_out_of_memory("decoding the latents", DECODING_REMEDY):
            decode = lambda z: self._pixels(z.to(device))  # noqa: E731
            yield from self.kind.vae.decode_pieces(decode, self.vae, latents)

    def _pixels(self: Any, latents: Tensor) -> Tensor:
        """``(B, 3, T, H, W)`` about [-1, 1], in the VAE's type."""
        mean, std = (t.to(latents.device) for t in self.kind.vae.statistics(self.vae.config))
        scaled = denormalise(latents, mean, std).to(self.vae.dtype)
        return self.vae.decode(scaled, return_dict=False)[0]
