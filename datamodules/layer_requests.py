"""LayerRequestsDataModule: the same prompts and seeds for every layer of a model."""

import json
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from datamodules.loader_processes import HostDataModule
from musicinfuser.atomic_files import write_text
from musicinfuser.clip_size import check_clip_size, geometry_of
from musicinfuser.errors import UserError
from musicinfuser.generation_requests import GenerationRequest, LayerRequest
from musicinfuser.label_files import read_json

SETTINGS_NAME = "settings.json"


class LayerRequestsDataModule(HostDataModule):
    """Every layer with every prompt and seed, shared out over processes, less what is made."""

    def __init__(
        self,
        output_dir: str,
        *,
        prompts: list[str],
        seeds: list[int],
        num_frames: int,
        height: int,
        width: int,
        family: str = "mochi",
    ) -> None:
        """Set up.

        Args:
            output_dir: Where clips and scores go; what is there already is not made again.
            prompts: What is generated, the same for every layer.
            seeds: Of the noise, the same for every layer and prompt.
            num_frames: Frames per clip, of Mochi 6k + 1.
            height: Pixels.
            width: Pixels.
            family: As ``model.backbone.family``: which sizes clips can have.
        """
        super().__init__()
        for name, given in (("prompts", prompts), ("seeds", seeds)):
            if not given or len(set(given)) < len(given):
                raise UserError(f"data.{name} is empty or repeats itself; name each once.")
        self.output_dir = output_dir
        check_clip_size(num_frames, height, width, geometry=geometry_of(family))
        size: dict[str, Any] = {"num_frames": num_frames, "height": height, "width": width}
        # The base model takes no audio.
        self.requests = [GenerationRequest("", p, seed, **size) for p in prompts for seed in seeds]
        self.choices: dict[str, Any] = {"prompts": prompts, "seeds": seeds, **size}
        """What decides the clips; once a stage is set up, with the module's choices."""

    def setup(self, stage: str) -> None:
        """Note what the clips are made with; refuse a folder of clips that were made otherwise."""
        if stage != "validate":
            raise UserError("layer adaptability is measured by `train.py validate` only.")
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        choices = module.choices() | {"precision": self.trainer.precision} | self.choices
        self.choices = json.loads(json.dumps(choices))
        path = Path(self.output_dir, SETTINGS_NAME)
        if path.is_file():
            before = read_json(path)
            if different := [k for k, v in self.choices.items() if before.get(k) != v]:
                raise UserError(
                    f"{self.output_dir} holds clips that were made with other settings "
                    f"({', '.join(different)}); give data.output_dir another folder."
                )
        elif self.trainer.is_global_zero:
            write_text(path, json.dumps(self.choices, indent=1, ensure_ascii=False) + "\n")

    def val_dataloader(self) -> DataLoader[list[LayerRequest]]:
        """This process's clips that are not there yet, one per batch.

        Layers are innermost, so that a measurement that is cut off has as many of each.
        """
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        layers = [None, *range(module.depth)]
        clips = [LayerRequest(layer, request) for request in self.requests for layer in layers]
        missing = [i for i, clip in enumerate(clips) if not clip.is_made(self.output_dir)]
        # As the first process sees the disk: all must share out the same list.
        missing = self.trainer.strategy.broadcast(missing)
        todo: Any = [clips[i] for i in self.share(missing)]
        return DataLoader(todo, batch_size=1, collate_fn=list)
