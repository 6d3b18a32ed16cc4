"""A generator of small random parts, and songs."""

import math

import pytest
import torch

from musicinfuser.app.generator import FormInput, Generator
from musicinfuser.app.options import parse
from musicinfuser.media.audio import write_wav
from tests.pipeline.conftest import (  # noqa: F401 - fixtures
    adapter,
    trained,
    wan_adapter,
    wan_parts,
    wan_trained,
)

RATE_HZ = 22_050


@pytest.fixture(scope="session")
def songs(tmp_path_factory):
    """A folder with a song of three seconds, silence, a text and a song in a video."""
    folder = tmp_path_factory.mktemp("songs")
    seconds = torch.arange(3 * RATE_HZ) / RATE_HZ
    tone = 0.5 * torch.sin(2 * math.pi * (200 * seconds + 100 * seconds**2))
    write_wav(folder / "song.wav", tone, rate_hz=RATE_HZ)
    write_wav(folder / "still.wav", torch.zeros(3 * RATE_HZ), rate_hz=RATE_HZ)
    (folder / "notes.mp3").write_text("not a song")
    return folder


@pytest.fixture(scope="session")
def load_generator(small_parts, adapter):  # noqa: F811 - a fixture
    """``load_generator(*arguments)``: what the command line would load, at 32x48."""

    def load(*arguments, model=small_parts, adapters=(f"random={adapter}",)):
        size = ["--height=32", "--width=48", "--num_steps=2", "--device=cpu"]
        given = [f"--model={model}", *size, *arguments]
        return Generator(parse([*given, "--adapter", *adapters]))

    return load


@pytest.fixture(scope="session")
def generator(load_generator):
    return load_generator()


@pytest.fixture
def form(songs):
    return FormInput(
        song=str(songs / "song.wav"),
        prompt="a dancer",
        seed=3,
        seconds=0.2,
        start_seconds=0.5,
        adapter="random",
        num_steps=2,
        guidance_scale=2.0,
        music_guidance_scale=1.0,
    )
