"""Frames, sound and beats of several clips on one picture, to judge them at a glance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from musicinfuser.errors import UserError
from musicinfuser.media.errors import atomic_file
from musicinfuser.setting_checks import check_number

_MARGIN_PX = 28
_COLUMN_PX, _WIDEST_COLUMN_PX, _NARROWEST_STRIP_PX = 160, 480, 960
_COLUMN_GAP_PX = 2
_ROW_GAP_PX = 26
_SPECTROGRAM_PX = 84
_BEAT_BAND_PX = 11
_AXIS_PX = 24
_TICK_STEPS_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)

_PAPER, _INK, _GREY, _FAINT = (255, 255, 255), (24, 26, 32), (112, 116, 126), (228, 230, 234)
_BEAT, _MOTION, _BAND = (0, 168, 204), (255, 255, 255), (40, 42, 50)
# Black over violet and orange to pale yellow: even in brightness, legible without colour.
_HEAT = ((4, 3, 18), (66, 15, 117), (148, 41, 128), (221, 81, 94), (252, 157, 105), (252, 253, 191))
_DYNAMIC_RANGE_DB = 65.0
# Tracks whose loudest partial is below this are drawn dark, instead of their noise as bright.
_QUIETEST_PEAK_DB = -50.0


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
        check_number(f"fps of row {self.label!r}", self.fps, above=0)
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
    """Write `sheet_image`, with its errors, as a PNG, whole or not at all; folders are made."""
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
        UserError: If there are no rows or no columns.
    """
    if not rows or num_columns < 1:
        raise UserError(
            f"a contact sheet needs at least one row and one column, got {len(rows)} rows and "
            f"{num_columns} columns."
        )
    column_width = min(max(_COLUMN_PX, _NARROWEST_STRIP_PX // num_columns), _WIDEST_COLUMN_PX)
    widths = {row.frames.shape[2] for row in rows}
    if len(widths) == 1 and min(widths) < column_width:
        column_width = min(widths) * round(column_width / min(widths))
    width = num_columns * (column_width + _COLUMN_GAP_PX) - _COLUMN_GAP_PX
    bands = [_row_image(row, num_columns, column_width, width) for row in rows]
    if title is not None:
        bands.insert(0, _lines_image(title, width, font_px=26, line_px=34, base_px=25))
    height = sum(band.height + _ROW_GAP_PX for band in bands) - _ROW_GAP_PX + 2 * _MARGIN_PX
    sheet = Image.new("RGB", (width + 2 * _MARGIN_PX, height), _PAPER)
    top = _MARGIN_PX
    for band in bands:
        sheet.paste(band, (_MARGIN_PX, top))
        top += band.height + _ROW_GAP_PX
    return sheet


def _row_image(row: SheetRow, num_columns: int, column_width: int, width: int) -> Image.Image:
    header = _header_image(row, width)
    strip = _strip_image(row, num_columns, column_width, width)
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
    font, note = ImageFont.load_default(14), "  |  ".join(facts)
    label_width = max(width - math.ceil(font.getlength(note)) - 30, width // 3)
    lines = _lines_image(row.label, label_width, font_px=18, line_px=24, base_px=17)
    image = Image.new("RGB", (width, lines.height + 6), _PAPER)
    image.paste(lines, (0, 0))
    draw = ImageDraw.Draw(image)
    draw.text((width, 17), note, _GREY, font, anchor="rs")
    if row.beats_seconds is not None:
        draw.text((width, 17), facts[-1], _BEAT, font, anchor="rs")
    return image


def _strip_image(row: SheetRow, num_columns: int, column_width: int, width: int) -> Image.Image:
    num_frames, height, frame_width = row.frames.shape[:3]
    if frame_width <= column_width:
        factor = column_width // frame_width
        size, method = (factor * frame_width, factor * height), Image.Resampling.NEAREST
    else:
        scaled = max(1, round(height * column_width / frame_width))
        size, method = (column_width, scaled), Image.Resampling.LANCZOS
    strip = Image.new("RGB", (width, size[1]), _PAPER)
    draw = ImageDraw.Draw(strip, "RGBA")
    font = ImageFont.load_default(12)
    for column in range(num_columns):
        index = column * num_frames // num_columns
        frame = Image.fromarray(row.frames[index].cpu().numpy()).resize(size, method)
        left = column * (column_width + _COLUMN_GAP_PX)
        draw.rectangle((left, 0, left + column_width - 1, size[1]), _FAINT)
        strip.paste(frame, (left + (column_width - size[0]) // 2, 0))
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
    level = spectrogram(
        samples, row.audio_rate_hz, num_bands=_SPECTROGRAM_PX, num_steps=min(covered, width)
    )
    colours = torch.tensor(_HEAT, dtype=torch.float32)
    position = level * (len(colours) - 1)
    low = position.long().clamp(max=len(colours) - 2)
    weight = (position - low)[..., None]
    pixels = (colours[low] * (1 - weight) + colours[low + 1] * weight).round().to(torch.uint8)
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


def _lines_image(text: str, width: int, *, font_px: int, line_px: int, base_px: int) -> Image.Image:
    font = ImageFont.load_default(font_px)
    lines = _wrapped_lines(text, font, width)
    image = Image.new("RGB", (width, line_px * len(lines)), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((0, line_px * number + base_px), line, _INK, font, anchor="ls")
    return image


def _wrapped_lines(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """At most two lines that fit; what does not ends in an ellipsis."""
    words, lines = text.split(), [""]
    while words:
        longer = f"{lines[-1]} {words[0]}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            words.pop(0)
        elif lines[-1] and len(lines) == 1:
            lines.append("")
        else:
            rest = " ".join([lines[-1], *words]).strip()
            while rest and font.getlength(rest + "...") > width:
                rest = rest[:-1]
            lines[-1] = rest.rstrip() + "..."
            break
    return lines


def spectrogram(waveform: Tensor, rate_hz: int, *, num_bands: int, num_steps: int) -> Tensor:
    """Loudness over time and mel-spaced frequency, for the eye.

    Takes (S,) to float32 (num_bands, num_steps) in [0, 1], from half the sampling rate (at most 8
    kHz) down to 0: 1 is the loudest point (or a sine of -50 dB full scale, if that is louder), 0
    everything 65 dB or more below.
    """
    window = 1 << max(5, round(math.log2(0.03 * rate_hz)))
    hop = max(1, min(window // 4, len(waveform) // num_steps))
    signal, half = waveform.detach().cpu().float()[None], window // 2
    # Zeros at the ends would sound like clicks there; very short signals cannot be mirrored.
    mode = "reflect" if signal.shape[1] > half else "constant"
    hann = torch.hann_window(window)
    spectrum = torch.stft(
        functional.pad(signal, (half, half), mode=mode)[0],
        window,
        hop_length=hop,
        window=hann,
        center=False,
        return_complex=True,
    )
    decibel = 20 * torch.log10(spectrum.abs() * 2 / hann.sum() + 1e-7)
    top_hz = min(8000.0, rate_hz / 2)
    mel = torch.linspace(2595 * math.log10(1 + top_hz / 700), 0, num_bands)
    rows = (700 * (10 ** (mel / 2595) - 1) / (rate_hz / window)).clamp(0, half)
    low = rows.long().clamp(max=half - 1)
    weight = (rows - low)[:, None]
    bands = decibel[low] * (1 - weight) + decibel[low + 1] * weight
    bands = functional.interpolate(bands[None], num_steps, mode="linear", align_corners=True)[0]
    peak = bands.max().clamp(min=_QUIETEST_PEAK_DB)
    return ((bands - peak) / _DYNAMIC_RANGE_DB + 1).clamp(0, 1)
