import json
import shutil
from pathlib import Path

import pytest
import torch

from musicinfuser.networks.captioner import AUTHORS_PROMPT, Captioner, CaptionerSpec
from tests.small_captioner import write_small_captioner

SECONDS, DURATION = (1.0, 3.0, 5.0, 7.0), 8.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_captioner(tmp_path_factory.mktemp("captioner"))


def captioner(folder: Path, **changes) -> Captioner:
    options = {"dtype": "float32", "max_new_tokens": 8} | changes
    return Captioner(CaptionerSpec(str(folder), **options))


def pictures(seed: int) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (4, 48, 64, 3), dtype=torch.uint8, generator=stream)


@pytest.mark.parametrize("show", ["video", "images"])
def test_it_says_what_it_sees_and_repeats_itself(folder: Path, show: str) -> None:
    model = captioner(folder, show=show)

    def say(frames: torch.Tensor) -> str:
        return model.describe(frames, seconds=SECONDS, duration=DURATION)

    said = say(pictures(0))
    assert said and said == say(pictures(0))
    assert said != say(pictures(1))
    assert AUTHORS_PROMPT.replace(" ", "") not in said.replace(" ", "")
    assert all(not p.requires_grad for p in model.parameters())
    # Eight letters at most, each a token of its own.
    assert len(said) <= 8


def test_the_model_is_shown_all_pictures_and_told_when_they_are(folder: Path) -> None:
    model = captioner(folder)
    inputs = model._inputs(pictures(0).permute(0, 3, 1, 2), SECONDS, DURATION)
    # Two pictures of the four to a grid, one every two seconds.
    assert inputs["video_grid_thw"][0, 0] == 2
    assert float(inputs["second_per_grid_ts"][0]) == pytest.approx(4.0)
    (asked,) = model.processor.batch_decode(inputs["input_ids"], skip_special_tokens=True)
    assert "".join(AUTHORS_PROMPT.split()) in "".join(asked.split())
    one_by_one = captioner(folder, show="images")._inputs(
        pictures(0).permute(0, 3, 1, 2), SECONDS, DURATION
    )
    assert len(one_by_one["image_grid_thw"]) == 4


def test_another_question_gets_another_answer(folder: Path) -> None:
    said = {
        captioner(folder, prompt=prompt).describe(pictures(0), seconds=SECONDS, duration=DURATION)
        for prompt in ("What is this?", "Who dances, where and how?")
    }
    assert len(said) == 2


def test_models_that_cannot_be_asked_are_refused(folder: Path, tmp_path: Path) -> None:
    mute = Path(shutil.copytree(folder, tmp_path / "mute"))
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="mute has no chat template; choose a model that chats"):
        captioner(mute)
    without_videos = tmp_path / "still"
    write_still_processor(folder, without_videos)
    with pytest.raises(ValueError, match="still takes no videos; set captioner.show to images"):
        captioner(without_videos)


def write_still_processor(folder: Path, target: Path) -> None:
    """A processor for pictures alone, of LLaVA's class."""
    from transformers import AutoTokenizer, CLIPImageProcessor, LlavaProcessor

    processor = LlavaProcessor(
        CLIPImageProcessor(), AutoTokenizer.from_pretrained(folder), chat_template="{{ messages }}"
    )
    processor.save_pretrained(target)
    (target / "config.json").write_text(json.dumps({"model_type": "llava"}))
