"""Where clips come from and how they are mixed into batches.

Classes can be imported from here; they are loaded when asked for: names of files and the cutting of
clips need no Lightning, which takes seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.aist import AISTDataset
    from datamodules.captioning import CaptioningDataModule
    from datamodules.dance import DanceDataModule
    from datamodules.encoding import EncodingDataModule
    from datamodules.layer_requests import LayerRequestsDataModule
    from datamodules.youtube import YouTubeDataset

__all__ = [
    "AISTDataset",
    "CaptioningDataModule",
    "DanceDataModule",
    "EncodingDataModule",
    "LayerRequestsDataModule",
    "YouTubeDataset",
]
_PLACES = {
    "AISTDataset": "datamodules.aist",
    "CaptioningDataModule": "datamodules.captioning",
    "DanceDataModule": "datamodules.dance",
    "EncodingDataModule": "datamodules.encoding",
    "LayerRequestsDataModule": "datamodules.layer_requests",
    "YouTubeDataset": "datamodules.youtube",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
