import os

import numpy as np
import pytest
import torch
from PIL import Image

from dance_eval.contact_sheet import SheetRow, contact_sheet, spectrogram
from musicinfuser.media.errors import MediaError

RATE_HZ = 16000
BEAT_COLOUR = (0, 168, 204)
COLOURS = torch.tensor(
    [[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30], [200, 30, 200], [30, 200, 200]],
    dtype=torch.uint8,
)


def flat_frames(num_frames=24, height=64, width=80):
    """A new colour every four frames."""
    colours = COLOURS[torch.arange(num_frames) // 4 % len(COLOURS)]
    return colours[:, None, None].expand(-1, height, width, -1).clone()


def draw(tmp_path, rows, **options):
    contact_sheet(rows, tmp_path / "sheets" / "sheet.png", **options)
    assert os.listdir(tmp_path / "sheets") == ["sheet.png"]
    return np.asarray(Image.open(tmp_path / "sheets" / "sheet.png").convert("RGB"))


def where(sheet, colour):
    """Rows and columns of the pixels of one colour."""
    return np.nonzero((sheet == np.array(colour)).all(-1))


@pytest.mark.parametrize("size", [(64, 80), (120, 212)])
def test_frames_stand_side_by_side_in_order(tmp_path, size):
    row = SheetRow("colours", flat_frames(24, *size), fps=24)
    sheet = draw(tmp_path, [row], num_columns=6)
    found = [where(sheet, colour.tolist()) for colour in COLOURS]
    lefts = [columns.min() for _, columns in found]
    assert np.diff(lefts).tolist() == [162] * 5
    for rows, columns in found:
        assert np.ptp(columns) + 1 == 160
        assert np.ptp(rows) + 1 == pytest.approx(160 * size[0] / size[1], abs=1)


def test_small_frames_are_enlarged_without_smoothing(tmp_path):
    checker = torch.zeros(8, 4, 4, 3, dtype=torch.uint8)
    checker[:, 0, 0] = torch.tensor([251, 7, 133], dtype=torch.uint8)
    sheet = draw(tmp_path, [SheetRow("dots", checker, fps=8)], num_columns=8)
    rows, columns = where(sheet, (251, 7, 133))
    assert len(rows) == 8 * 40 * 40
    assert np.ptp(rows) + 1 == 40


def test_beats_are_marked_on_the_time_axis_of_the_strip(tmp_path):
    frames = flat_frames()
    sound = torch.rand(RATE_HZ) - 0.5
    beats = (0.25, 0.5, 0.75, 1.0, 1.5, -0.001, -1.0)
    sheet = draw(tmp_path, [SheetRow("", frames, 24, sound, RATE_HZ, beats)], num_columns=6)
    strip_left = where(sheet, COLOURS[0].tolist())[1].min()
    strip_right = where(sheet, COLOURS[5].tolist())[1].max() + 1
    strip_bottom = where(sheet, COLOURS[5].tolist())[0].max()
    rows, columns = where(sheet, BEAT_COLOUR)
    under = columns[rows > strip_bottom]
    width = strip_right - strip_left
    for beat in (0.25, 0.5, 0.75):
        near = abs(under - (strip_left + beat * width)) <= 6
        assert near.sum() > 100
        under = under[~near]
    assert len(under) == 0


def test_a_row_without_sound_has_no_spectrogram(tmp_path):
    frames = flat_frames()
    loud = SheetRow("a", frames, 24, torch.rand(RATE_HZ) - 0.5, RATE_HZ)
    mute = SheetRow("a", frames, 24)
    with_sound, without = draw(tmp_path, [loud]), draw(tmp_path, [mute])
    assert with_sound.shape[0] - without.shape[0] == 84
    painted = [((s < 200).any(-1).mean(axis=1) > 0.5).sum() for s in (with_sound, without)]
    assert painted[0] - painted[1] == pytest.approx(84, abs=2)
    both = draw(tmp_path, [loud, mute], title="Two of them")
    assert both.shape[0] > with_sound.shape[0] + without.shape[0] - 60
    assert both.shape[1] == with_sound.shape[1]


def test_sound_shorter_than_the_picture_leaves_the_rest_blank(tmp_path):
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(RATE_HZ // 2) / RATE_HZ)
    sheet = draw(tmp_path, [SheetRow("half", flat_frames(), 24, tone, RATE_HZ)], num_columns=6)
    bottom = where(sheet, COLOURS[5].tolist())[0].max()
    left = where(sheet, COLOURS[0].tolist())[1].min()
    right = where(sheet, COLOURS[5].tolist())[1].max() + 1
    band = sheet[bottom + 25 : bottom + 80, left:right].astype(int)
    half = band.shape[1] // 2
    assert np.ptp(band[:, half + 3 :]) <= 6  # one pale grey
    assert np.ptp(band[:, : half - 3]) > 150


def test_spectrogram_puts_pitch_and_time_in_their_place():
    time = torch.arange(2 * RATE_HZ) / RATE_HZ
    tone = torch.where(time < 1, torch.sin(2 * torch.pi * 1000 * time), 0.0)
    image = spectrogram(tone, RATE_HZ, num_bands=100, num_steps=200)
    assert image.shape == (100, 200)
    assert image.max() == 1 and image.min() == 0
    # 1000 Hz is 1000 of the 2840 mel up to 8 kHz.
    assert abs(int(image[:, 50].argmax()) - round(99 * (1 - 1000 / 2840))) <= 1
    assert image[:, 10:90].amax(0).min() > 0.95
    assert image[:, 110:].max() == 0


def test_silence_is_dark_and_short_sound_is_drawn():
    assert spectrogram(torch.zeros(RATE_HZ), RATE_HZ, num_bands=20, num_steps=50).max() == 0
    short = spectrogram(torch.ones(10), RATE_HZ, num_bands=20, num_steps=50)
    assert short.shape == (20, 50) and short.isfinite().all()
    assert spectrogram(torch.rand(9000), 44100, num_bands=20, num_steps=1).shape == (20, 1)


@pytest.mark.parametrize("num_columns", [1, 3, 20])
def test_clips_of_unlike_shape_share_a_sheet(tmp_path, num_columns):
    rows = [
        SheetRow("a very long label " * 30, flat_frames(), 24, torch.zeros(9), RATE_HZ, []),
        SheetRow("wörd" * 200, flat_frames(1, 30, 700), 0.5),
        SheetRow("", flat_frames(5, 101, 33), 1000.0),
    ]
    sheet = draw(tmp_path, rows, num_columns=num_columns, title="much " * 100)
    assert sheet.shape[1] < num_columns * 490 + 60


def test_unfit_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([], tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="'x' must be uint8"):
        SheetRow("x", torch.zeros(2, 4, 4, 3), 30)
    with pytest.raises(ValueError, match="fps of row 'x'"):
        SheetRow("x", flat_frames(), 0)
    with pytest.raises(ValueError, match="go together"):
        SheetRow("x", flat_frames(), 30, torch.zeros(5))
    with pytest.raises(ValueError, match=r"must be \(S,\)"):
        SheetRow("x", flat_frames(), 30, torch.zeros(2, 5), RATE_HZ)
    (tmp_path / "taken").write_text("")
    with pytest.raises(MediaError, match=r"sheet\.png: cannot be written"):
        contact_sheet([SheetRow("x", flat_frames(), 30)], tmp_path / "taken" / "sheet.png")
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.parametrize("has_sound", [True, False])
def test_the_motion_curve_shares_the_time_axis_and_marks_rests(tmp_path, has_sound):
    frames = flat_frames()
    motion = [0.0] * 23
    motion[11] = 1.0
    sound = (torch.zeros(RATE_HZ), RATE_HZ) if has_sound else (None, None)
    row = SheetRow("", frames, 24, *sound, motion=motion, rests_seconds=[0.25])
    sheet = draw(tmp_path, [row], num_columns=6)
    strip_left = where(sheet, COLOURS[0].tolist())[1].min()
    strip_right = where(sheet, COLOURS[5].tolist())[1].max() + 1
    strip_bottom = where(sheet, COLOURS[5].tolist())[0].max()
    band = sheet[strip_bottom + 12 : strip_bottom + 12 + 84, strip_left:strip_right]
    rows, columns = where(band, (255, 255, 255))
    width = strip_right - strip_left
    # From frame 11 to 12, as for beats of the motion; nothing moves at the rest, which is a dot.
    assert columns[rows.argmin()] == pytest.approx(11.5 / 24 * width, abs=3)
    assert rows.max() == pytest.approx(84 - 5, abs=6)
    per_column = np.bincount(columns, minlength=width)
    assert per_column[round(0.25 * width)] > per_column[round(0.35 * width)] + 3


def test_a_motion_curve_has_a_value_per_pair_of_frames():
    with pytest.raises(ValueError, match=r"motion of row 'a' .* 23, got 24"):
        SheetRow("a", flat_frames(), 24, motion=[0.0] * 24)
