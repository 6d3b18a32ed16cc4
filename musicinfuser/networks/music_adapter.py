"""MusicAdapter: ZICA and the audio projector as one model of diffusers', to save and to share."""

from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from musicinfuser.clip_size import LatentTimes, geometry_of
from musicinfuser.networks.audio_projector import AudioProjector, AudioResampling
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.zica import ZicaSpec, build_zica


class MusicAdapter(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """What conditions a backbone on audio (section 4.3), without the backbone.

    ``save_pretrained`` writes ``config.json`` and ``diffusion_pytorch_model.safetensors`` with the
    names that `MusicModel` has: ``zica.<block>.*`` and ``audio_projector.*``. `MusicModel` holds
    one as ``adapter`` and runs it, so it has no ``forward``.
    """

    # Trained in fp32 and kept so beside a backbone in bf16, under autocast.
    _keep_in_fp32_modules = ["zica", "audio_projector"]  # noqa: RUF012 - diffusers' attribute
    ignore_for_config = ["zica"]  # noqa: RUF012 - likewise; its fields are registered one by one

    @register_to_config
    def __init__(
        self,
        width: int,
        layers: list[int],
        backbone_layers: int | None = None,
        audio_width: int = 768,
        audio_resampling: AudioResampling = "nearest",
        audio_encoder: str | None = None,
        origin: dict[str, Any] | None = None,
        audio_layers: list[list[int]] | None = None,
        **zica: Any,
    ) -> None:
        """Build the adapter.

        Args:
            width: Channels of the backbone's visual stream (Mochi: 3072).
            layers: 0-based blocks followed by ZICA, at least one.
            backbone_layers: Blocks of the backbone it belongs to (Mochi: 48); None if nobody said.
            audio_width: Channels of the audio features (wav2vec 2.0 base: 768).
            audio_resampling: How audio features become one token per latent frame.
            audio_encoder: Hub id or folder of the wav2vec 2.0 it was trained with; None if nobody
                said.
            origin: What it was trained with, as `Origin.stored` has it; None if nobody said.
            audio_layers: Of features with all hidden states of an encoder, ``[number, width]`` of
                each group of channels; None where nothing is mixed.
            **zica: As `ZicaSpec.stored` names them, and ``init``; also ``family``, if the backbone
                is not of Mochi's, and ``fps``, if it was trained at another rate than the
                family's.
        """
        super().__init__()
        spec = ZicaSpec.from_stored(zica)
        # Not an argument of its own, which would be in the configs of Mochi too.
        said = {name: zica[name] for name in ("family", "fps") if name in zica}
        self.register_to_config(**spec.stored(), **said)
        self.layers = tuple(layers)
        self.zica = build_zica(width, spec, self.layers)
        tokens = spec.inner_width(width)
        self.audio_projector = AudioProjector(audio_width, tokens, audio_resampling, audio_layers)
        self.audio_projector.times = self.trained_with.audio.times
        frames = geometry_of(self.family).temporal
        self.audio_projector.latent_times = LatentTimes(frames, 1 / self.fps)

    @staticmethod
    def _get_init_keys(input_class: Any) -> set[str]:
        """The arguments that diffusers takes from a ``config.json``."""
        own = ConfigMixin._get_init_keys(input_class) - {"zica"}
        return own | {"family", "fps"} | ZicaSpec().stored().keys()

    @property
    def family(self) -> str:
        """Of the backbone it belongs to; a config that does not say it is of Mochi."""
        return self.config.get("family", "mochi")

    @property
    def fps(self) -> float:
        """Frames per second of the videos it was trained on."""
        return self.config.get("fps") or geometry_of(self.family).fps

    @property
    def trained_with(self) -> Origin:
        """What the adapter was trained with, or what is assumed of one that does not say it."""
        assumed = Origin.assumed(None, audio_width=self.config.audio_width)
        return Origin.from_stored(self.config) or assumed
