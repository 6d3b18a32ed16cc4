"""A part whose training was ended and started again equals one that was trained at one go."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from small_world.parts.audio_encoder import AudioEncoderModule
from small_world.parts.autoencoder import AutoencoderModule
from small_world.parts.text_encoder import TextEncoderModule
from small_world.parts.text_to_video import TextToVideoModule
from tests.small_world.parts.part_training import (
    audio_encoder_arguments,
    base_arguments,
    text_encoder_arguments,
    train_part,
    vae_arguments,
)

MODULES = {
    "vae": AutoencoderModule,
    "audio_encoder": AudioEncoderModule,
    "text_encoder": TextEncoderModule,
    "base": TextToVideoModule,
}


@pytest.mark.parametrize("name", MODULES)
def test_goes_on_to_the_bit(
    name: str,
    media: Path,
    small_parts: Path,
    small_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = {
        "vae": vae_arguments(media),
        "audio_encoder": audio_encoder_arguments(),
        "text_encoder": text_encoder_arguments(),
        "base": base_arguments(small_parts, small_cache),
    }[name]
    # A cosine ends with the last step, which is another one where training is ended sooner.
    arguments += ["--model.init_args.schedule={decay: constant, warmup_steps: 3}"]
    steps = noted_steps(MODULES[name], monkeypatch)

    def train(folder: str, num_steps: int, *options: str) -> Any:
        return train_part(name, tmp_path / folder, *arguments, *options, steps=num_steps)

    def exported(folder: str) -> dict[Path, bytes]:
        files = (tmp_path / folder / "export").rglob("*")
        return {path: path.read_bytes() for path in files if path.is_file()}

    whole = train("whole", 4).model.state_dict()
    train("parted", 2)
    parted = train("parted", 4).model.state_dict()
    assert steps == [0, 1, 2, 3, 0, 1, 2, 3]  # the last two with what was loaded
    assert whole.keys() == parted.keys()
    differing = [key for key, value in whole.items() if not torch.equal(value, parted[key])]
    assert differing == []
    # A trial leaves the export of the training as it is, and makes none.
    before = exported("parted")
    for folder in ("parted", "fresh"):
        train(folder, 1, "--trainer.fast_dev_run=1")
    assert before and exported("parted") == before
    assert exported("fresh") == {}


def noted_steps(module_class: type[LightningModule], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The global step of every training step from now on."""
    steps: list[int] = []
    training_step = module_class.training_step

    def note(self: LightningModule, batch: Any, batch_idx: int) -> torch.Tensor:
        steps.append(self.global_step)
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(module_class, "training_step", note)
    return steps
