"""LayerAdaptabilityModule: the base, guided away from itself without one layer (section 4.1)."""

from typing import Any

import lightning.pytorch as L
import torch

from lightning_modules.settings import check_same_family
from musicinfuser.clip_size import geometry_of
from musicinfuser.errors import UserError
from musicinfuser.generation import (
    OUTPUT_RATE_HZ,
    GeneratedClip,
    LayerGuidance,
    SamplingSpec,
    sample_latents,
)
from musicinfuser.generation_requests import LayerRequest
from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from musicinfuser.setting_differences import without_defaults


class LayerAdaptabilityModule(L.LightningModule):
    """Generates clips with v = v_un + w (v_c - v_un) + s (v_c - v_c_without_l) for each layer l.

    This is eq. 4 as spatiotemporal skip guidance carries it out (arXiv 2411.18664, named in
    appendix G). The backbone is used as it is, without adapters and without music.
    """

    def __init__(
        self,
        backbone: BackboneSpec,
        encoders: EncodersSpec,
        sampling: SamplingSpec,
        layer_scale: float = 1.0,
        memory: MemorySettings = MemorySettings(),  # noqa: B008 - frozen
    ) -> None:
        """Set up; weights are read in `configure_model`.

        Args:
            backbone: The transformer whose layers are measured.
            encoders: VAE and T5; no audio encoder is needed.
            sampling: Steps and text guidance w; music guidance has no effect.
            layer_scale: s; 0 makes the same clips for all layers.
            memory: As for training; with ``stream_blocks`` 24 GB suffice.

        Raises:
            ValueError: A scale below 0.
            UserError: Parts of several families, or a frame rate that is not the backbone's.
        """
        super().__init__()
        LayerGuidance(layer=0, scale=layer_scale)
        check_same_family(backbone, encoders=encoders, sampling=sampling)
        if sampling.fps != (own := geometry_of(backbone.family).fps):
            raise UserError(
                f"model.sampling.fps is {sampling.fps:g}, but {backbone.family} without adapters "
                f"makes {own:g} frames per second; set it to that."
            )
        self.backbone_spec, self.sampling, self.layer_scale = backbone, sampling, layer_scale
        self.memory = memory
        self.encoders = Encoders(encoders)
        self.model: MusicModel | None = None

    def configure_model(self) -> None:
        """Read the backbone, once."""
        if self.model is None:
            backbone = build_backbone(self.backbone_spec)
            self.model = MusicModel(
                backbone, layers=[], zica=ZicaSpec(), lora=None, memory=self.memory
            )

    @property
    def depth(self) -> int:
        """Number of blocks; only after `configure_model`."""
        assert self.model is not None
        return len(self.model.kind.blocks)

    def choices(self) -> dict[str, Any]:
        """What decides the clips, as json has it."""
        encoders = without_defaults(self.encoders.spec, "family")
        found: dict[str, Any] = {
            "backbone": self.backbone_spec.stored(),
            # No audio is used.
            "encoders": {k: v for k, v in encoders.items() if not k.startswith("audio")},
            "sampling": self.sampling.stored(),
            "layer_scale": self.layer_scale,
        }
        if weights := self.backbone_spec.fingerprint():
            found["weights"] = weights
        return found

    def validation_step(self, batch: list[LayerRequest], batch_idx: int) -> dict[str, Any]:
        """Generate the clips of a batch.

        Returns:
            ``clips``: one silent `GeneratedClip` per request.
        """
        return {"clips": [self.generate(request) for request in batch]}

    def generate(self, layer_request: LayerRequest) -> GeneratedClip:
        """Generate one clip; the same layer and request give the same clip."""
        assert self.model is not None
        request, layer = layer_request.request, layer_request.layer
        text, negative = self.encoders.encode_captions(
            [request.prompt, self.sampling.negative_prompt], device=self.device
        )
        by_layer = None if layer is None else LayerGuidance(layer, self.layer_scale)
        latents = sample_latents(
            self.model, text=text, negative=negative, audio=None, request=request,
            sampling=self.sampling, device=self.device, by_layer=by_layer,
        )  # fmt: skip
        frames = self.encoders.decode_video(latents)[0]
        silence = torch.zeros(round(request.num_frames / self.sampling.fps * OUTPUT_RATE_HZ))
        return GeneratedClip(request, frames, silence, 0.0, self.sampling.fps)
