"""Where clips come from and how they are mixed into batches."""

from datamodules.aist import AISTDataset
from datamodules.captioning import CaptioningDataModule
from datamodules.dance import DanceDataModule
from datamodules.encoding import EncodingDataModule
from datamodules.frames import FrameDataModule
from datamodules.layer_cells import LayerCellsDataModule
from datamodules.music_pieces import MusicDataModule
from datamodules.named_scenes import CaptionDataModule
from datamodules.youtube import YouTubeDataset

__all__ = [
    "AISTDataset",
    "CaptionDataModule",
    "CaptioningDataModule",
    "DanceDataModule",
    "EncodingDataModule",
    "FrameDataModule",
    "LayerCellsDataModule",
    "MusicDataModule",
    "YouTubeDataset",
]
