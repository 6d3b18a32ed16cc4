"""MusicInfuser (arXiv 2503.14505) as plain torch: networks, diffusion, media and metrics.

The pipelines and `MusicAdapter` can be imported from here; they are loaded when asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musicinfuser.networks.music_adapter import MusicAdapter
    from musicinfuser.pipelines.music_infuser import MusicInfuserPipeline
    from musicinfuser.pipelines.music_infuser_wan import MusicInfuserWanPipeline

__all__ = ["MusicAdapter", "MusicInfuserPipeline", "MusicInfuserWanPipeline"]
_PLACES = {
    "MusicAdapter": "musicinfuser.networks.music_adapter",
    "MusicInfuserPipeline": "musicinfuser.pipelines.music_infuser",
    "MusicInfuserWanPipeline": "musicinfuser.pipelines.music_infuser_wan",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
