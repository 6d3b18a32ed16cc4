"""Which pipeline a base is for."""

from musicinfuser.networks.backbones import Mochi
from musicinfuser.pipelines.calling import MusicPipeline
from musicinfuser.pipelines.music_infuser import MusicInfuserPipeline
from musicinfuser.pipelines.music_infuser_wan import MusicInfuserWanPipeline
from musicinfuser.pipelines.pretrained_mixin import music_pipeline_of

PIPELINES: dict[str, type[MusicPipeline]] = {
    kind.__name__: kind for kind in (MusicInfuserPipeline, MusicInfuserWanPipeline)
}


def pipeline_for(source: str) -> type[MusicPipeline]:
    """By what a folder or Hub id says of itself; Mochi's where it says nothing."""
    return PIPELINES[music_pipeline_of(source) or Mochi.music_pipeline]
