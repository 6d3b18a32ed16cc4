"""`evaluate.py pose`: from a folder of videos to files of joints that metrics read."""

import json

import pytest
import torch

from dance_eval.loading import EvaluationError
from dance_eval.metrics.skeletons import COCO17
from evaluate import main
from musicinfuser.joint_files import read_people
from musicinfuser.media.video_writing import write_video
from tests.dance_eval import pose_parts
from tests.dance_eval.pose_parts import Scripted

FINDER = "--finder=tests.dance_eval.pose_parts.Scripted"


@pytest.fixture
def folder(tmp_path):
    """Videos with one person, two people, nobody, and one that is no video."""
    for name, level in (("one", 100), ("two", 200), ("nobody", 10)):
        frames = torch.full((40, 32, 48, 3), level, dtype=torch.uint8)
        write_video(tmp_path / "clips" / f"{name}.mp4", frames, fps=30.0)
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video")
    return tmp_path / "clips"


@pytest.fixture
def calls(monkeypatch):
    found, find = [], Scripted.find

    def counted(self, frames):
        found.append(len(frames))
        return find(self, frames)

    monkeypatch.setattr(pose_parts.Scripted, "find", counted)
    return found


def test_every_video_gets_joints_and_what_was_not_found_is_listed(folder, capsys, calls):
    main(["pose", str(folder), FINDER])
    printed = capsys.readouterr().out
    assert "3 clips have a file of joints: 3 new, 0 kept." in printed
    assert "- clips: nobody.mp4: nobody was found." in printed
    assert "- clips: two.mp4: 2 people." in printed
    assert "one.mp4" not in printed
    assert "1 clips failed:" in printed and "broken.mp4" in printed
    # What `predict` keeps beside a clip is another file.
    assert not (folder / "two.json").exists()
    two = read_people(folder / "two.joints.json")
    assert two.places.shape == (2, 40, 17, 2) and two.names == COCO17
    # The larger one comes first, as it was found.
    found = pose_parts.body_at(100 + 5, 100).joints
    torch.testing.assert_close(two.places[0, 5], torch.tensor(found), rtol=0, atol=0.01)
    content = json.loads((folder / "two.joints.json").read_text())
    assert content["frame_size"] == [48, 32] and content["made_of"]["finder"] == "scripted a"
    # Again: nothing is left to do but the broken one; with another finder all is.
    main(["pose", str(folder), FINDER])
    assert "0 new, 3 kept" in capsys.readouterr().out and len(calls) == 3
    (folder / "one.joints.json").unlink()
    main(["pose", str(folder), FINDER])
    assert "1 new, 2 kept" in capsys.readouterr().out and len(calls) == 4
    main(["pose", str(folder), FINDER, "--finder.mark=b"])
    assert "3 new, 0 kept" in capsys.readouterr().out and len(calls) == 7


def test_files_of_others_are_left_alone_and_joints_may_lie_elsewhere(folder, tmp_path, capsys):
    truth = json.dumps({"beats_seconds": [0.5]})
    (folder / "one.joints.json").write_text(truth)
    main(["pose", str(folder), FINDER])
    assert "was not written by this command; give --output" in capsys.readouterr().out
    assert (folder / "one.joints.json").read_text() == truth
    main(["pose", str(folder), FINDER, f"--output={tmp_path / 'joints'}"])
    assert "3 new" in capsys.readouterr().out
    assert read_people(tmp_path / "joints" / "one.joints.json").places.shape == (1, 40, 17, 2)
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.mp4").write_bytes((folder / "one.mp4").read_bytes())
    with pytest.raises(EvaluationError, match="two clips would both be one.joints.json"):
        main(["pose", str(folder), str(other), FINDER, f"--output={tmp_path / 'x'}"])


def test_a_finder_that_cannot_work_ends_the_command(folder):
    with pytest.raises(EvaluationError, match="MediaPipe: .*could not be started"):
        main(["pose", str(folder), "--finder=MediaPipe", "--finder.python=/no/such/python"])
    with pytest.raises(EvaluationError, match="none of the 4 clips"):
        main(["pose", str(folder), FINDER, "--finder.broken=true"])
