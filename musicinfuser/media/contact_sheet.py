"""Frames, sound and beats of several clips on one picture, to judge them at a glance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from musicinfuser.media.errors import written_whole

_MARGIN_PX = 28
_CELL_PX, _WIDEST_CELL_PX, _NARROWEST_STRIP_PX = 160, 480, 960
_CELL_GAP_PX = 2
_ROW_GAP_PX = 26
_SPECTROGRAM_PX = 84
_BEAT_BAND_PX = 11
_AXIS_PX = 24
_TICK_STEPS_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
_DYNAMIC_RANGE_DB = 65.0
# Tracks whose loudest partial is below this are drawn dark, instead of their noise as bright.
_QUIETEST_PEAK_DB = -50.0

_PAPER, _INK, _GREY, _FAINT = (255, 255, 255), (24, 26, 32), (112, 116, 126), (228, 230, 234)
_BEAT = (0, 168, 204)
# Black over violet and orange to pale yellow: even in brightness, legible without colour.
_HEAT = ((4, 3, 18), (66, 15, 117), (148, 41, 128), (221, 81, 94), (252, 157, 105), (252, 253, 191))


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
    """

    label: str
    frames: Tensor
    fps: float
    audio: Tensor | None = None
    audio_rate_hz: int | None = None
    beats_seconds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        shape = tuple(self.frames.shape)
        if self.frames.dtype != torch.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise ValueError(
                f"frames of row {self.label!r} must be uint8 (T, H, W, 3), got "
                f"{self.frames.dtype} {shape}."
            )
        if not self.fps > 0:
            raise ValueError(f"fps of row {self.label!r} must be positive, got {self.fps}.")
        if (self.audio is None) != (self.audio_rate_hz is None):
            raise ValueError(f"audio and audio_rate_hz of row {self.label!r} go together.")
        if self.audio is not None and self.audio.ndim != 1:
            raise ValueError(
                f"audio of row {self.label!r} must be (S,), got {tuple(self.audio.shape)}."
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
    """Write a PNG with one row per clip: label, frames with time stamps, spectrogram, beats.

    The length of a clip is divided evenly into columns, each showing the frame at its left edge,
    so that frames, spectrogram, beats and the axis below them share one time scale. Small frames
    are enlarged by a whole factor without smoothing. The file appears whole or not at all.

    Args:
        rows: Clips from top to bottom, at least one; they may differ in size and length.
        path: File to write; missing folders are made.
        num_columns: Frames per row.
        title: Headline of the sheet.

    Raises:
        ValueError: If there are no rows or no columns.
        MediaError: If the file system refuses.
    """
    if not rows or num_columns < 1:
        raise ValueError(
            f"a contact sheet needs at least one row and one column, got {len(rows)} rows and "
            f"{num_columns} columns."
        )
    cell_width = _cell_width(rows, num_columns)
    width = num_columns * (cell_width + _CELL_GAP_PX) - _CELL_GAP_PX
    bands = [_row_image(row, num_columns, cell_width, width) for row in rows]
    if title is not None:
        bands.insert(0, _title_image(title, width))
    height = sum(band.height + _ROW_GAP_PX for band in bands) - _ROW_GAP_PX + 2 * _MARGIN_PX
    sheet = Image.new("RGB", (width + 2 * _MARGIN_PX, height), _PAPER)
    top = _MARGIN_PX
    for band in bands:
        sheet.paste(band, (_MARGIN_PX, top))
        top += band.height + _ROW_GAP_PX
    with written_whole(path) as temporary:
        sheet.save(temporary, format="PNG")


def spectrogram(waveform: Tensor, rate_hz: int, *, num_bands: int, num_steps: int) -> Tensor:
    """Loudness over time and mel-spaced frequency, for the eye.

    Args:
        waveform: Float (S,).
        rate_hz: Sampling rate.
        num_bands: Frequencies from half the sampling rate (at most 8 kHz) down to 0.
        num_steps: Time steps, evenly over the waveform.

    Returns:
        float32 (num_bands, num_steps) in [0, 1], highest frequency first: 1 is the loudest point
        (or a sine of -50 dB full scale, if that is louder), 0 everything 65 dB or more below.
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


def _cell_width(rows: Sequence[SheetRow], num_columns: int) -> int:
    wanted = min(max(_CELL_PX, _NARROWEST_STRIP_PX // num_columns), _WIDEST_CELL_PX)
    widths = {row.frames.shape[2] for row in rows}
    if len(widths) == 1 and min(widths) < wanted:
        return min(widths) * round(wanted / min(widths))
    return wanted


def _row_image(row: SheetRow, num_columns: int, cell_width: int, width: int) -> Image.Image:
    header = _header_image(row, width)
    strip = _strip_image(row, num_columns, cell_width, width)
    has_sound = row.audio is not None
    below = _BEAT_BAND_PX + (_SPECTROGRAM_PX if has_sound else 0) + _AXIS_PX
    image = Image.new("RGB", (width, header.height + strip.height + below), _PAPER)
    image.paste(header, (0, 0))
    image.paste(strip, (0, header.height))
    top = header.height + strip.height + _BEAT_BAND_PX
    bottom = top
    if has_sound:
        bottom = top + _SPECTROGRAM_PX
        image.paste(_spectrogram_image(row, width), (0, top))
    draw = ImageDraw.Draw(image)
    _draw_beats(draw, row, width, top, bottom)
    _draw_axis(draw, row, width, bottom)
    return image


def _header_image(row: SheetRow, width: int) -> Image.Image:
    facts = [f"{len(row.frames)} frames", f"{row.fps:g} fps", f"{row.duration_seconds:.2f} s"]
    if row.audio is None:
        facts.append("no sound")
    if row.beats_seconds is not None:
        facts.append(f"{len(_visible_beats(row))} beats")
    small, large = ImageFont.load_default(14), ImageFont.load_default(18)
    note = "  |  ".join(facts)
    note_width = math.ceil(small.getlength(note))
    lines = _wrapped(row.label, large, max(width - note_width - 30, width // 3))
    image = Image.new("RGB", (width, 24 * len(lines) + 6), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((0, 24 * number + 17), line, _INK, large, anchor="ls")
    draw.text((width, 17), note, _GREY, small, anchor="rs")
    if row.beats_seconds is not None:
        beat_text = f"{len(_visible_beats(row))} beats"
        draw.text((width, 17), beat_text, _BEAT, small, anchor="rs")
    return image


def _strip_image(row: SheetRow, num_columns: int, cell_width: int, width: int) -> Image.Image:
    num_frames, height, frame_width = row.frames.shape[:3]
    if frame_width <= cell_width:
        factor = cell_width // frame_width
        size, method = (factor * frame_width, factor * height), Image.Resampling.NEAREST
    else:
        scaled = max(1, round(height * cell_width / frame_width))
        size, method = (cell_width, scaled), Image.Resampling.LANCZOS
    strip = Image.new("RGB", (width, size[1]), _PAPER)
    draw = ImageDraw.Draw(strip, "RGBA")
    font = ImageFont.load_default(12)
    for column in range(num_columns):
        index = column * num_frames // num_columns
        frame = Image.fromarray(row.frames[index].cpu().numpy()).resize(size, method)
        left = column * (cell_width + _CELL_GAP_PX)
        draw.rectangle((left, 0, left + cell_width - 1, size[1]), _FAINT)
        strip.paste(frame, (left + (cell_width - size[0]) // 2, 0))
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
    pixels = colours[low] * (1 - weight) + colours[low + 1] * weight
    image.paste(Image.fromarray(pixels.round().to(torch.uint8).numpy()), (0, 0))
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
    lines = _wrapped(title, font, width)
    image = Image.new("RGB", (width, 34 * len(lines)), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((0, 34 * number + 25), line, _INK, font, anchor="ls")
    return image


def _wrapped(
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
