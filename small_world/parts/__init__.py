"""Training of the parts of the small Mochi: VAE, text and audio encoder, transformer."""

from small_world.parts.audio_encoder import AudioEncoderModule
from small_world.parts.autoencoder import AutoencoderModule
from small_world.parts.text_encoder import TextEncoderModule
from small_world.parts.text_to_video import TextToVideoModule

__all__ = ["AudioEncoderModule", "AutoencoderModule", "TextEncoderModule", "TextToVideoModule"]
