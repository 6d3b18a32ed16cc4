"""MusicAdapter: ZICA and the audio projector as one model of diffusers', to save and to share."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from musicinfuser.errors import UserError
from musicinfuser.networks.audio_projector import AudioProjector, AudioResampling
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.zica import ZicaSpec, build_zica

if TYPE_CHECKING:
    from musicinfuser.networks.music_mochi import MusicMochi


class MusicAdapter(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """What lets a Mochi hear (section 4.3), without the Mochi.

    ``save_pretrained`` writes ``config.json`` and ``diffusion_pytorch_model.safetensors`` with the
    names that `MusicMochi` has: ``zica.<block>.*`` and ``audio_projector.*``. `MusicMochi` runs
    it, so it has no ``forward``.
    """

    # Trained in fp32 and kept so beside a backbone in bf16, under autocast.
    _keep_in_fp32_modules = ["zica", "audio_projector"]  # noqa: RUF012 - diffusers' attribute

    @register_to_config
    def __init__(
        self,
        width: int,
        layers: list[int],
        backbone_layers: int | None = None,
        form: Literal["cross_attention", "feature_addition"] = "cross_attention",
        num_heads: int = 8,
        bias: bool = True,
        scale: Literal["head", "width"] = "head",
        positions: Literal["none", "rotary", "aligned"] = "none",
        audio_width: int = 768,
        audio_resampling: AudioResampling = "nearest",
        audio_encoder: str | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        """Build the adapter with zero output projections.

        Args:
            width: Channels of the backbone's visual stream (Mochi: 3072).
            layers: 0-based blocks followed by ZICA, at least one.
            backbone_layers: Blocks of the backbone it belongs to (Mochi: 48); None if nobody said.
            form: As in `ZicaSpec`; so are the next four.
            num_heads: Attention heads.
            bias: Biases on the projections.
            scale: Scale of the logits.
            positions: Whether attention knows time.
            audio_width: Channels of the audio features (wav2vec 2.0 base: 768).
            audio_resampling: How 50 tokens per second become one per latent frame.
            audio_encoder: Hub id or folder of the wav2vec 2.0 it was trained with; None if nobody
                said.
            origin: What it was trained with, as `Origin.stored` gives it; None if nobody said.
        """
        super().__init__()
        spec = ZicaSpec(form=form, num_heads=num_heads, bias=bias, scale=scale, positions=positions)
        self.layers = tuple(layers)
        self.zica = build_zica(width, spec, self.layers)
        self.audio_projector = AudioProjector(audio_width, width, audio_resampling)

    @classmethod
    def from_model(
        cls,
        model: "MusicMochi",
        *,
        audio_encoder: str | None = None,
        origin: Origin | None = None,
    ) -> Self:
        """The adapter of a model; they share their weights.

        Args:
            model: Has at least one layer with audio.
            audio_encoder: As in the constructor.
            origin: What the adapter was trained with; None if nobody said.

        Raises:
            ValueError: The model has no layer with audio.
        """
        if model.audio_projector is None:
            raise UserError("the model has no layers with audio (model.layers), so no adapter.")
        config = model.backbone.config
        settings: dict[str, Any] = asdict(model.zica_spec)
        settings.pop("init")
        with torch.device("meta"):
            adapter = cls(
                width=config.num_attention_heads * config.attention_head_dim,
                layers=list(model.layers),
                backbone_layers=config.num_layers,
                audio_width=model.audio_projector.projection[0].in_features,
                audio_resampling=model.audio_projector.resampling,
                audio_encoder=audio_encoder,
                **(origin.stored() if origin else {}),
                **settings,
            )
        adapter.zica, adapter.audio_projector = model.zica, model.audio_projector
        return adapter

    @property
    def trained_with(self) -> Origin:
        """What the adapter was trained with, or what is assumed of one that does not say it."""
        assumed = Origin.assumed(None, audio_width=self.config.audio_width)
        return Origin.from_stored(self.config) or assumed
