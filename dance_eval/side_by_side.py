"""One video that shows several clips of the same music beside each other, with its sound."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dance_eval.contact_sheet import SheetRow
from musicinfuser.errors import UserError
from musicinfuser.media.video_writing import write_video

_PANEL_PX = 256
_LABEL_PX, _BEAT_PX, _GAP_PX = 26, 10, 4
_PAPER, _INK, _BEAT = (255, 255, 255), (24, 26, 32), (0, 168, 204)
_FLASH_SECONDS = 0.1


def side_by_side(panels: Sequence[SheetRow], path: Path | str) -> None:
    """Write an mp4 with one panel per clip, left to right, each under its label.

    The sound, the marked beats (a bar below the panels lights up on each) and the length are those
    of the first panel; the others are shown for as long, and rest on their last frame if they end
    sooner. Small frames are enlarged by a whole factor without smoothing, as on a contact sheet.
    Missing folders are made; `UserError` for fewer than two panels or several frame rates.
    """
    if len(panels) < 2:
        raise UserError(f"{path}: needs at least two clips to stand beside each other.")
    rates = {panel.fps for panel in panels}
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in sorted(rates))
        raise UserError(f"{path}: the clips have {listed} frames per second; give one rate.")
    first = panels[0]
    pictures = [_enlarged(panel.frames) for panel in panels]
    height = max(picture.shape[1] for picture in pictures)
    widths = [picture.shape[2] for picture in pictures]
    width = sum(widths) + _GAP_PX * (len(panels) - 1)
    width += width % 2
    total_height = _LABEL_PX + height + _BEAT_PX
    total_height += total_height % 2
    canvas = Image.new("RGB", (width, total_height), _PAPER)
    draw, font, left = ImageDraw.Draw(canvas), ImageFont.load_default(15), 0
    for panel, panel_width in zip(panels, widths, strict=True):
        label = panel.label
        while label and font.getlength(label) > panel_width - 8:
            label = label[:-1]
        draw.text((left + 4, _LABEL_PX - 8), label, _INK, font, anchor="ls")
        left += panel_width + _GAP_PX
    num_frames = len(first.frames)
    frames = torch.from_numpy(np.array(canvas)).repeat(num_frames, 1, 1, 1)
    left = 0
    for picture, panel_width in zip(pictures, widths, strict=True):
        shown = torch.arange(num_frames).clamp(max=len(picture) - 1)
        place = frames[:, _LABEL_PX : _LABEL_PX + picture.shape[1], left : left + panel_width]
        place.copy_(picture[shown])
        left += panel_width + _GAP_PX
    for beat in first.beats_seconds or ():
        start = max(math.ceil(float(beat) * first.fps - 1e-6), 0)
        stop = start + max(round(_FLASH_SECONDS * first.fps), 1)
        frames[start:stop, _LABEL_PX + height :] = torch.tensor(_BEAT, dtype=torch.uint8)
    write_video(path, frames, fps=first.fps, audio=first.audio, audio_rate_hz=first.audio_rate_hz)


def _enlarged(frames: Tensor) -> Tensor:
    """``(T, H, W, 3)`` uint8, enlarged by a whole factor up to the panel's height."""
    factor = max(_PANEL_PX // frames.shape[1], 1)
    return frames.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
