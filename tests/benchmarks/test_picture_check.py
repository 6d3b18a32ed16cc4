import csv
import json

import pytest
import torch

from musicinfuser.media.video_writing import write_video
from small_world.experiments.picture_check import DAMAGES, TRUTH, main, table_rows
from tests.conftest import ROOT

PROMPTS = ("a man in a red shirt dancing Pop in front of a green wall", "a woman in a blue shirt")


def test_damages_are_what_they_say():
    frames = torch.full((4, 32, 32, 3), 128, dtype=torch.uint8)
    frames[:, 8:24, 8:24] = 200
    for name, strength in (("noise 20", 20), ("noise 60", 60)):
        added = DAMAGES[name](frames, 0).float() - frames.float()
        assert added[:, :8].std() == pytest.approx(strength, rel=0.1)
        assert not torch.equal(DAMAGES[name](frames, 1), DAMAGES[name](frames, 0))
    edges = [DAMAGES[name](frames, 0).float().diff(dim=2).abs().max() for name in DAMAGES]
    assert 72 > edges[2] > edges[3]  # noise, noise, blurred, blurred more
    assert DAMAGES["blur 6 px"](frames, 0).shape == frames.shape


def test_differences_are_to_the_same_clip_as_it_should_be():
    def clip(system, file, number):
        values = {"prompt_certainty": {"certainty": number}, "prompt_obedience": {"obeyed": 1.0}}
        return {"system": system, "file": file, "values": values}

    clips = [clip(TRUTH, "a", 0.9), clip(TRUTH, "b", 0.2), clip("bad", "a", 0.3)]
    clips += [clip("bad", "b", 0.3), clip("best", "c", 0.5), clip("base", "c", 0.1)]
    rows, figures = table_rows({"clips": clips}, [TRUTH, "best"])
    assert [row["clips below"] for row in rows] == [None, "1 of 2", None, "1 of 1"]
    assert figures["bad"]["difference"]["mean"] == pytest.approx(-0.25)
    assert figures["base"]["difference"]["mean"] == pytest.approx(-0.4)
    assert figures["bad"]["prompt_certainty/certainty"]["mean"] == pytest.approx(0.3)


@pytest.mark.slow
def test_from_a_test_set_to_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    truth = tmp_path / "set" / "ground_truth"
    lines = ["file,system,track,prompt"]
    for index, prompt in enumerate(PROMPTS):
        frames = torch.randint(0, 255, (7, 64, 64, 3), dtype=torch.uint8)
        write_video(truth / f"{index}.mp4", frames, fps=30.0)
        lines.append(f'{index}.mp4,ground truth,{index}.wav,"{prompt}"')
    (truth / "clips.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "set" / "own.csv").write_text("track,prompt,seed\n0.wav,a,0\n1.wav,b,1\n")
    arguments = [f"--set={tmp_path}/set", f"--out={tmp_path}/out", "--clips=2", "--steps"]
    main(arguments)
    figures = json.loads((tmp_path / "out" / "picture_check.json").read_text())
    assert len(figures) == 2 + len(DAMAGES)
    with (tmp_path / "out" / "prompt_of_another" / "clips.csv").open() as stream:
        assert [row["prompt"] for row in csv.DictReader(stream)] == list(reversed(PROMPTS))
    with pytest.raises(SystemExit, match="clips: 2 there, 1 here"):
        main([*arguments[:2], "--clips=1", "--steps"])
