"""Lightning shells around the networks: training, encoding."""

from lightning_modules.audio_encoder import AudioEncoderModule
from lightning_modules.autoencoder import AutoencoderModule
from lightning_modules.encoding import ClipEncoder
from lightning_modules.music_infuser import MusicInfuserModule

__all__ = ["AudioEncoderModule", "AutoencoderModule", "ClipEncoder", "MusicInfuserModule"]
