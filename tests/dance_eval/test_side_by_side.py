import pytest
import torch

from dance_eval.contact_sheet import SheetRow
from dance_eval.side_by_side import side_by_side
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import probe_video, read_clip

FPS = 10.0


def flat(colour, num_frames=10, size=64):
    frames = torch.tensor(colour, dtype=torch.uint8).expand(num_frames, size, size, 3).clone()
    return frames


def decode(path, num_frames):
    info = probe_video(path)
    return read_clip(
        path, start_seconds=0.0, num_frames=num_frames, height=info.height, width=info.width,
        fps=FPS, crop=None,
    )  # fmt: skip


def test_panels_stand_in_order_under_their_labels_with_the_sound_of_the_first(tmp_path):
    tone = torch.sin(torch.arange(16000) * 0.2) * 0.5
    first = SheetRow("ground truth", flat((200, 30, 30)), FPS, tone, 16000, [0.2, 0.7])
    second = SheetRow("adapted", flat((30, 30, 200)), FPS)
    side_by_side([first, second], tmp_path / "out" / "pair.mp4")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["pair.mp4"]
    video = decode(tmp_path / "out" / "pair.mp4", 10).float()
    height, width = video.shape[1:3]
    assert width == 2 * 256 + 4 and height == 26 + 256 + 10
    left, right = video[:, 150, 100], video[:, 150, 400]
    assert (left - torch.tensor([200.0, 30, 30])).abs().max() < 12
    assert (right - torch.tensor([30.0, 30, 200])).abs().max() < 12
    label = video[0, 4:24, :200]
    assert label.min() < 110 < 230 < label.max()
    # The bar lights up where the beats are, frames 2 and 7, and is paper elsewhere.
    bar = video[:, height - 5, width // 2, 0]
    assert [i for i in range(10) if bar[i] < 128] == [2, 7]
    sound = read_audio(tmp_path / "out" / "pair.mp4", rate_hz=16000)
    assert sound.abs().max() > 0.3


def test_a_shorter_clip_rests_on_its_last_frame(tmp_path):
    long = SheetRow("a", flat((90, 90, 90), num_frames=8), FPS)
    frames = torch.cat([flat((0, 0, 0), num_frames=3), flat((220, 220, 220), num_frames=1)])
    side_by_side([long, SheetRow("b", frames, FPS)], tmp_path / "pair.mp4")
    shown = decode(tmp_path / "pair.mp4", 8)[:, 150, 400, 0]
    assert [int(v > 128) for v in shown] == [0, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "panels, problem",
    [
        ([SheetRow("a", flat((0, 0, 0)), FPS)], "two clips"),
        ([SheetRow("a", flat((0, 0, 0)), FPS), SheetRow("b", flat((0, 0, 0)), 25.0)], "10, 25"),
    ],
)
def test_says_what_cannot_be_shown(tmp_path, panels, problem):
    with pytest.raises(ValueError, match=problem):
        side_by_side(panels, tmp_path / "pair.mp4")
    assert not list(tmp_path.iterdir())
