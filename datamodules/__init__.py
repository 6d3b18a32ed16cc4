"""Where clips come from and how they are mixed into batches."""

from datamodules.aist import AISTDataset
from datamodules.captioning import CaptioningDataModule
from datamodules.dance import DanceDataModule
from datamodules.encoding import EncodingDataModule
from datamodules.layer_requests import LayerRequestsDataModule
from datamodules.youtube import YouTubeDataset
