"""A clip with guidance by one layer of the model, where it lies and what it is called."""

from dataclasses import dataclass
from pathlib import Path

from musicinfuser.generation_requests import GenerationRequest

CLIPS_FOLDER = "clips"


@dataclass(frozen=True)
class LayerRequest:
    """One clip of the measurement of layer adaptability (section 4.1)."""

    layer: int | None
    """The block that is skipped for guidance, from 0; None for the reference without it."""
    request: GenerationRequest

    @property
    def system(self) -> str:
        """Name in metrics.json."""
        return system_name(self.layer)

    def folder(self, output_dir: str | Path) -> Path:
        """Where the clip goes."""
        return layer_folder(output_dir, self.layer)

    def is_made(self, output_dir: str | Path) -> bool:
        """Whether the clip is there; its description is written after it, and both whole."""
        description = self.folder(output_dir) / f"{self.request.file_stem()}.json"
        return description.is_file() and description.with_suffix(".mp4").is_file()


def all_layers(depth: int) -> list[int | None]:
    """The reference and every block of a model."""
    return [None, *range(depth)]


def system_name(layer: int | None) -> str:
    """Name in metrics.json of the clips with guidance by a layer."""
    return "no layer skipped" if layer is None else f"layer {layer}"


def layer_folder(output_dir: str | Path, layer: int | None) -> Path:
    """Folder of the clips with guidance by a layer."""
    name = "no_layer_skipped" if layer is None else f"layer_{layer:02d}"
    return Path(output_dir, CLIPS_FOLDER, name)
