"""Frames, sound and beats of several clips on one picture, to judge them at a glance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from musicinfuser.errors import UserError
from musicinfuser.media.errors import atomic_file
from musicinfuser.media.spectrogram import coloured_spectrogram
from musicinfuser.media.text_lines import wrapped_lines

_MARGIN_PX = 28
_CELL_PX, _WIDEST_CELL_PX, _NARROWEST_STRIP_PX = 160, 480, 960
_CELL_GAP_PX = 2
_ROW_GAP_PX = 26
_SPECTROGRAM_PX = 84
_BEAT_BAND_PX = 11
_AXIS_PX = 24
_TICK_STEPS_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)

_PAPER, _INK, _GREY, _FAINT = (255, 255, 255), (24, 26, 32), (112, 116, 126), (228, 230, 234)
_BEAT, _MOTION, _BAND = (0, 168, 204), (255, 255, 255), (40, 42, 50)


@dataclass(frozen=True)
class SheetRow:
    """One clip of a contact sheet.

    Attributes:
        label: What the row shows, such as the system and the prompt; wrapped to two lines.
        frames: uint8 (T, H, W, 3), RGB.
        fps: Frame rate.
        audio: Float (S,) from the first frame on, or None for a row without a spectrogram.
        audio_rate_hz: Sampling rate of ``audio``.
        beats_seconds: Times to mark, counted from the first frame; None marks none.
        motion: How much moves from each frame to the next, 0 or more, (T - 1,); drawn as a curve
            over the spectrogram, its largest value at the top. None draws none.
        rests_seconds: Times to mark on that curve, counted from the first frame.
    """

    label: str
    frames: Tensor
    fps: float
    audio: Tensor | None = None
    audio_rate_hz: int | None = None
    beats_seconds: Sequence[float] | None = None
    motion: Sequence[float] | None = None
    rests_seconds: Sequence[float] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        shape = tuple(self.frames.shape)
        if self.frames.dtype != torch.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise UserError(
                f"frames of row {self.label!r} must be uint8 (T, H, W, 3), got "
                f"{self.frames.dtype} {shape}."
            )
        if not self.fps > 0:
            raise UserError(f"fps of row {self.label!r} must be positive, got {self.fps}.")
        if (self.audio is None) != (self.audio_rate_hz is None):
            raise UserError(f"audio and audio_rate_hz of row {self.label!r} go together.")
        if self.audio is not None and self.audio.ndim != 1:
            raise UserError(
                f"audio of row {self.label!r} must be (S,), got {tuple(self.audio.shape)}."
            )
        if self.motion is not None and len(self.motion) != shape[0] - 1:
            raise UserError(
                f"motion of row {self.label!r} must have one value per pair of neighbouring "
                f"frames, {shape[0] - 1}, got {len(self.motion)}."
            )

    @property
    def duration_seconds(self) -> float:
        """Length of the picture."""
        return len(self.frames) / self.fps


def contact_sheet(
    rows: Sequence[SheetRow],
    path: Path | str,
    *,
    num_columns: int = 8,
    title: str | None = None,
) -> None:
    """Write `sheet_image` as a PNG, whole or not at all.

    Args:
        rows: As for `sheet_image`.
        path: File to write; missing folders are made.
        num_columns: Frames per row.
        title: Headline of the sheet.

    Raises:
        ValueError: If there are no rows or no columns.
        MediaError: If the file system refuses.
    """
    sheet = sheet_image(rows, num_columns=num_columns, title=title)
    with atomic_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def sheet_image(
    rows: Sequence[SheetRow], *, num_columns: int = 8, title: str | None = None
) -> Image.Image:
    """Draw one row per clip: label, frames with time stamps, spectrogram, beats, motion.

    The length of a clip is divided evenly into columns, each showing the frame at its left edge,
    so that frames, spectrogram, beats and the axis below them share one time scale. Small frames
    are enlarged by a whole factor without smoothing.

    Args:
        rows: Clips from top to bottom, at least one; they may differ in size and length.
        num_columns: Frames per row.
        title: Headline of the sheet.

    Raises:
        ValueError: If there are no rows or no columns.
    """
    if not rows or num_columns < 1:
        raise UserError(
            f"a contact sheet needs at least one row and one column, got {len(rows)} rows and "
            f"{num_columns} columns."
        )
    request_width = _request_width(rows, num_columns)
    width = num_columns * (request_width + _CELL_GAP_PX) - _CELL_GAP_PX
    bands = [_row_image(row, num_columns, request_width, width) for row in rows]
    if title is not None:
        bands.insert(0, _title_image(title, width))
    height = sum(band.height + _ROW_GAP_PX for band in bands) - _ROW_GAP_PX + 2 * _MARGIN_PX
    sheet = Image.new("RGB", (width + 2 * _MARGIN_PX, height), _PAPER)
    top = _MARGIN_PX
    for band in bands:
        sheet.paste(band, (_MARGIN_PX, top))
        top += band.height + _ROW_GAP_PX
    return sheet


def _request_width(rows: Sequence[SheetRow], num_columns: int) -> int:
    wanted = min(max(_CELL_PX, _NARROWEST_STRIP_PX // num_columns), _WIDEST_CELL_PX)
    widths = {row.frames.shape[2] for row in rows}
    if len(widths) == 1 and min(widths) < wanted:
        return min(widths) * round(wanted / min(widths))
    return wanted


def _row_image(row: SheetRow, num_columns: int, request_width: int, width: int) -> Image.Image:
    header = _header_image(row, width)
    strip = _strip_image(row, num_columns, request_width, width)
    has_band = row.audio is not None or row.motion is not None
    below = _BEAT_BAND_PX + (_SPECTROGRAM_PX if has_band else 0) + _AXIS_PX
    image = Image.new("RGB", (width, header.height + strip.height + below), _PAPER)
    image.paste(header, (0, 0))
    image.paste(strip, (0, header.height))
    top = header.height + strip.height + _BEAT_BAND_PX
    bottom = top
    draw = ImageDraw.Draw(image)
    if has_band:
        bottom = top + _SPECTROGRAM_PX
        if row.audio is None:
            draw.rectangle((0, top, width, bottom - 1), _BAND)
        else:
            image.paste(_spectrogram_image(row, width), (0, top))
    _draw_beats(draw, row, width, top, bottom)
    if row.motion is not None:
        _draw_motion(draw, row, width, top)
    _draw_axis(draw, row, width, bottom)
    return image


def _header_image(row: SheetRow, width: int) -> Image.Image:
    facts = [f"{len(row.frames)} frames", f"{row.fps:g} fps", f"{row.duration_seconds:.2f} s"]
    if row.audio is None:
        facts.append("no sound")
    if row.motion is not None:
        facts.append(f"curve: motion, {len(row.rests_seconds)} rests")
    if row.beats_seconds is not None:
        facts.append(f"{len(_visible_beats(row))} beats")
    small, large = ImageFont.load_default(14), ImageFont.load_default(18)
    note = "  |  ".join(facts)
    note_width = math.ceil(small.getlength(note))
    lines = wrapped_lines(row.label, large, max(width - note_width - 30, width // 3))
    image = Image.new("RGB", (width, 24 * len(lines) + 6), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((0, 24 * number + 17), line, _INK, large, anchor="ls")
    draw.text((width, 17), note, _GREY, small, anchor="rs")
    if row.beats_seconds is not None:
        beat_text = f"{len(_visible_beats(row))} beats"
        draw.text((width, 17), beat_text, _BEAT, small, anchor="rs")
    return image


def _strip_image(row: SheetRow, num_columns: int, request_width: int, width: int) -> Image.Image:
    num_frames, height, frame_width = row.frames.shape[:3]
    if frame_width <= request_width:
        factor = request_width // frame_width
        size, method = (factor * frame_width, factor * height), Image.Resampling.NEAREST
    else:
        scaled = max(1, round(height * request_width / frame_width))
        size, method = (request_width, scaled), Image.Resampling.LANCZOS
    strip = Image.new("RGB", (width, size[1]), _PAPER)
    draw = ImageDraw.Draw(strip, "RGBA")
    font = ImageFont.load_default(12)
    for column in range(num_columns):
        index = column * num_frames // num_columns
        frame = Image.fromarray(row.frames[index].cpu().numpy()).resize(size, method)
        left = column * (request_width + _CELL_GAP_PX)
        draw.rectangle((left, 0, left + request_width - 1, size[1]), _FAINT)
        strip.paste(frame, (left + (request_width - size[0]) // 2, 0))
        stamp = f"{index / row.fps:.2f} s"
        right = left + math.ceil(font.getlength(stamp)) + 9
        draw.rectangle((left, size[1] - 18, right, size[1]), (0, 0, 0, 165))
        draw.text((left + 5, size[1] - 5), stamp, (255, 255, 255), font, anchor="ls")
    return strip


def _spectrogram_image(row: SheetRow, width: int) -> Image.Image:
    assert row.audio is not None and row.audio_rate_hz is not None
    image = Image.new("RGB", (width, _SPECTROGRAM_PX), _FAINT)
    samples = row.audio[: round(row.duration_seconds * row.audio_rate_hz)]
    covered = round(width * len(samples) / (row.duration_seconds * row.audio_rate_hz))
    if covered < 1:
        return image
    pixels = coloured_spectrogram(
        samples, row.audio_rate_hz, num_bands=_SPECTROGRAM_PX, num_steps=min(covered, width)
    )
    image.paste(Image.fromarray(pixels.numpy()), (0, 0))
    return image


def _visible_beats(row: SheetRow) -> list[float]:
    return [t for t in map(float, row.beats_seconds or ()) if 0 <= t < row.duration_seconds]


def _draw_beats(
    draw: ImageDraw.ImageDraw, row: SheetRow, width: int, top: int, bottom: int
) -> None:
    for beat in _visible_beats(row):
        x = round(beat / row.duration_seconds * width)
        draw.polygon([(x - 5, top - 9), (x + 5, top - 9), (x, top - 1)], _BEAT)
        if bottom > top:
            draw.line((x, top, x, bottom - 1), _BEAT, 2)


def _draw_motion(draw: ImageDraw.ImageDraw, row: SheetRow, width: int, top: int) -> None:
    curve = torch.tensor([float(value) for value in row.motion or ()])
    if len(curve) == 0:
        return
    # What changes from frame i to i + 1 changes around (i + 0.5) / fps, after frame i's left edge.
    height = _SPECTROGRAM_PX - 10
    levels = (curve / curve.max().clamp(min=1e-12)).tolist()
    scale = width / len(row.frames)
    points = [
        ((index + 0.5) * scale, top + 5 + height * (1 - level))
        for index, level in enumerate(levels)
    ]
    for colour, thickness in ((_INK, 5), (_MOTION, 2)):
        draw.line(points, colour, thickness, joint="curve")
    for rest in row.rests_seconds:
        place = min(max(float(rest) * row.fps - 0.5, 0), len(levels) - 1)
        left = int(place)
        right = min(left + 1, len(levels) - 1)
        level = levels[left] + (place - left) * (levels[right] - levels[left])
        x, y = (place + 0.5) * scale, top + 5 + height * (1 - level)
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), _MOTION, _INK)


def _draw_axis(draw: ImageDraw.ImageDraw, row: SheetRow, width: int, top: int) -> None:
    font = ImageFont.load_default(12)
    draw.line((0, top, width, top), _GREY)
    fitting = (s for s in _TICK_STEPS_SECONDS if s / row.duration_seconds * width >= 70)
    step = next(fitting, _TICK_STEPS_SECONDS[-1])
    for number in range(math.floor(row.duration_seconds / step + 1e-6) + 1):
        x = min(round(number * step / row.duration_seconds * width), width - 1)
        text = f"{number * step:.1f} s" if step < 1 else f"{number * step} s"
        anchor = "lt" if number == 0 else "rt" if x + font.getlength(text) / 2 > width else "mt"
        draw.line((x, top, x, top + 5), _GREY)
        draw.text((x, top + 9), text, _GREY, font, anchor=anchor)


def _title_image(title: str, width: int) -> Image.Image:
    font = ImageFont.load_default(26)
    lines = wrapped_lines(title, font, width)
    image = Image.new("RGB", (width, 34 * len(lines)), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((0, 34 * number + 25), line, _INK, font, anchor="ls")
    return image
