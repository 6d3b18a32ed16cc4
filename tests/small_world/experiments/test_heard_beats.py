import csv
import math
from pathlib import Path

import pytest
import torch

from musicinfuser.errors import UserError
from musicinfuser.networks.transformers_audio import TransformersAudio
from small_world.experiments import heard_beats
from small_world.generator.songs import COLUMNS
from tests.small_world.experiments.test_recorded_songs import write_clicks


def test_a_beat_begins_where_its_circle_does() -> None:
    times = 0.01 + 0.02 * torch.arange(200)
    angles = 2 * math.pi * (times - 0.313) / 0.5
    positions = torch.stack([angles.cos(), angles.sin()], dim=1)
    expected = torch.arange(0.313, 4.0, 0.5).double()
    torch.testing.assert_close(heard_beats.beats_of(positions, times), expected, atol=1e-3, rtol=0)
    positions[:60] = 0  # nothing to follow in the first 1.2 s
    torch.testing.assert_close(
        heard_beats.beats_of(positions, times), expected[2:], atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("late", [0.0, 0.06])
def test_beats_heard_late_score_as_the_kernel_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], late: float
) -> None:
    """A head that knows the beats of a song of 120 per minute, to half a token of 20 ms."""
    with open(tmp_path / "songs.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        write_clicks(tmp_path / "music" / "a.wav", bpm=120, first=0.3)
        rows.writerow(["game-data", "a.wav", 1.0, 120, 0.3])
    monkeypatch.setitem(heard_beats.LISTS, "test", tmp_path / "songs.csv")
    starts = iter([3.0, 11.0])  # context before the clip, and eight seconds further on

    def knows(self, waveforms, *, device, speeds):
        assert tuple(speeds) == (1.0,)
        middles = (
            torch.arange(self.num_features(waveforms.shape[1])) * 320 + self.window / 2
        ) / 16e3
        beats = (next(starts) + middles - 0.3 - late) * 2
        angles = 2 * math.pi * beats[:, None] / torch.tensor([1, 2, 4])
        return torch.stack([angles.cos(), angles.sin()], dim=-1)[None]

    monkeypatch.setattr(TransformersAudio, "beat_points", knows)
    heard_beats.main([str(tmp_path / "music"), "--songs", "test", "--speeds", "1"])
    said = capsys.readouterr().out
    assert said.startswith("test songs at 1: ") and said.endswith("n = 2\n")
    least, most = (math.exp(-0.5 * (lag / 0.05) ** 2) for lag in (late + 0.01, max(late - 0.01, 0)))
    assert least <= float(said.split()[4]) <= most
    with pytest.raises(UserError, match="between 0.5 and 2"):
        heard_beats.main([str(tmp_path / "music"), "--speeds", "3"])
