"""Frames as pretrained networks of pictures want them, resized exactly as their scores demand.

How a picture is made smaller changes a score by more than two systems differ, so every way has a
name here. VBench's are those of its code: frames as floats in [0, 255], torchvision's Resize
without antialiasing, nothing rounded or clamped. All take frames as uint8 RGB in [0, 255], shape
(T, H, W, 3); a clip without frames is refused.
"""

from typing import Literal, get_args

from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, center_crop, normalize, resize

from dance_eval.metrics.motion import require_frames
from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_choice

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]

MUSIQ_SIDE = 512
MusiqResize = Literal["longer", "shorter"]


def clip_pixels(frames: Tensor, *, size: int, antialias: bool) -> Tensor:
    """Frames as CLIP reads them: short side to ``size``, bicubic, centre crop, normalised.

    With ``antialias`` they are resized as CLIP's own code does, smoothed and back in whole levels;
    without as VBench does. Returns float32, shape (T, 3, size, size).
    """
    pictures = _pictures(frames)
    if not antialias:
        pictures = pictures.float()
    pictures = resize(pictures, [size], InterpolationMode.BICUBIC, antialias=antialias)
    pictures = center_crop(pictures, [size, size])
    return normalize(pictures.float() / 255, CLIP_MEAN, CLIP_STD)


def dino_pixels(frames: Tensor, *, size: int) -> Tensor:
    """Frames as VBench gives them to DINO: short side to ``size`` (bilinear), not cropped.

    The long side keeps the aspect, rounded down. Returns float32, shape (T, 3, size, W') or
    (T, 3, H', size).
    """
    pictures = _pictures(frames).float()
    pictures = resize(pictures, [size], InterpolationMode.BILINEAR, antialias=False)
    return normalize(pictures / 255, IMAGENET_MEAN, IMAGENET_STD)


def video_pixels(frames: Tensor, *, size: int) -> Tensor:
    """Frames as VideoMAE's processor gives them: short side to ``size``, centre crop, normalised.

    Bilinear, smoothed. Returns float32, shape (T, 3, size, size).
    """
    pictures = resize(_pictures(frames), [size], InterpolationMode.BILINEAR, antialias=True)
    pictures = center_crop(pictures, [size, size])
    return normalize(pictures.float() / 255, IMAGENET_MEAN, IMAGENET_STD)


def musiq_size(height: int, width: int, *, mode: MusiqResize) -> tuple[int, int]:
    """Height and width of frames that VBench gives to MUSIQ; ``"longer"`` is its default.

    Where the side that the mode names is above 512 px, both are scaled by 512 over it and rounded
    down, in double precision as VBench's code has it: 561 px become 511.
    """
    check_choice("resize", mode, get_args(MusiqResize))
    side = max(height, width) if mode == "longer" else min(height, width)
    if side <= MUSIQ_SIDE:
        return height, width
    scale = MUSIQ_SIDE / side
    return int(scale * height), int(scale * width)


def musiq_pixels(frames: Tensor, *, mode: MusiqResize) -> Tensor:
    """Frames as VBench gives them to MUSIQ: of `musiq_size`, in [0, 1], float32 (T, 3, H', W')."""
    pictures = _pictures(frames)
    size = musiq_size(pictures.shape[2], pictures.shape[3], mode=mode)
    return resize(pictures.float(), list(size), InterpolationMode.BILINEAR, antialias=False) / 255


def _pictures(frames: Tensor) -> Tensor:
    require_frames(frames)
    if not len(frames):
        raise UserError("A clip without frames shows nothing; give at least one.")
    return frames.permute(0, 3, 1, 2).contiguous()
