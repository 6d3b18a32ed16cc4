"""What the parts of the small Mochi learn from."""

from small_world.data.caption_dataset import CaptionDataModule
from small_world.data.frames import FrameDataModule
from small_world.data.music_dataset import MusicDataModule

__all__ = ["CaptionDataModule", "FrameDataModule", "MusicDataModule"]
