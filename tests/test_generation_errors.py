"""What `train.py predict` says of music, adapters and memory that do not do."""

import json
import shutil

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from musicinfuser.errors import UserError
from musicinfuser.media.audio import write_wav
from musicinfuser.memory.out_of_memory import OutOfMemoryError
from tests.pipeline.conftest import adapter, trained  # noqa: F401 - fixtures


@pytest.fixture
def predict(run_cli, tmp_path):
    """``predict(loudness, *arguments)`` of one clip for a tone, or for silence."""

    def run(loudness, *arguments):
        path = tmp_path / "song.wav"
        write_wav(path, loudness * torch.sin(torch.arange(32_000) / 5), rate_hz=16_000)
        request = {"music": [str(path)], "prompts": ["p"]}
        given = f"--data.init_args.generation={json.dumps(request)}"
        return run_cli("predict", "--ckpt_path=null", given, *arguments)

    return run


def test_silence_is_said(predict, capsys):
    predict(0.0)
    assert "song.wav is silent from second 0.00 on for the whole clip" in capsys.readouterr().out


def test_an_adapter_of_another_model_is_refused(predict, adapter, tmp_path):  # noqa: F811
    other = tmp_path / "other"
    shutil.copytree(f"{adapter}/zica", other / "zica")
    with pytest.raises(ValueError, match=r"trained with other settings \(.*audio_resampling") as e:
        predict(0.5, f"--model.init_args.init_adapter={other}")
    assert isinstance(e.value, UserError) and len(str(e.value).splitlines()) == 1


def test_a_model_larger_than_the_device_names_the_profile(predict, monkeypatch):
    def fail(strategy):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB. More text")

    monkeypatch.setattr(SingleDeviceStrategy, "model_to_device", fail)
    with pytest.raises(
        OutOfMemoryError, match="configs/profiles that train.py check names.*CUDA out of memory.$"
    ):
        predict(0.5)
