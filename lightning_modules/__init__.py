"""Lightning shells around the networks: training, encoding, captioning."""

from lightning_modules.adaptability import LayerAdaptabilityModule
from lightning_modules.audio_encoder import AudioEncoderModule
from lightning_modules.autoencoder import AutoencoderModule
from lightning_modules.captioning import VideoCaptioner
from lightning_modules.encoding import ClipEncoder
from lightning_modules.music_infuser import MusicInfuserModule
from lightning_modules.text_encoder import TextEncoderModule
from lightning_modules.text_to_video import TextToVideoModule

__all__ = [
    "AudioEncoderModule",
    "AutoencoderModule",
    "ClipEncoder",
    "LayerAdaptabilityModule",
    "MusicInfuserModule",
    "TextEncoderModule",
    "TextToVideoModule",
    "VideoCaptioner",
]
