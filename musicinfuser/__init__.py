"""MusicInfuser (arXiv 2503.14505) as plain torch: networks, diffusion, media and metrics.

`MusicInfuserPipeline` and `MusicAdapter` can be imported from here; they are loaded when asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musicinfuser.networks.music_adapter import MusicAdapter
    from musicinfuser.pipelines.music_infuser import MusicInfuserPipeline

__all__ = ["MusicAdapter", "MusicInfuserPipeline"]
_PLACES = {
    "MusicAdapter": "musicinfuser.networks.music_adapter",
    "MusicInfuserPipeline": "musicinfuser.pipelines.music_infuser",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
