"""Lightning shells around the networks: training, encoding, captioning."""

from lightning_modules.adaptability import LayerAdaptabilityModule
from lightning_modules.captioning import VideoCaptioner
from lightning_modules.encoding import ClipEncoder
from lightning_modules.learning_rate import WarmUp
from lightning_modules.music_infuser import MusicInfuserModule
