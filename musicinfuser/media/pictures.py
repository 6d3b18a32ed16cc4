"""Pictures that clips begin with, from files or from what Python holds."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from musicinfuser.media.errors import MediaError, reason
from musicinfuser.media.video import centre_crop, cropped

# Of these no pixel has more than 8 bits, which `convert` would cut off.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def read_picture(path: Path | str, *, height: int, width: int) -> Tensor:
    """A picture file as a clip's first frame: the largest box of its aspect, resized.

    The box lies in the middle, as that of videos in the wild. A photograph is turned as its camera
    says; of an animation the first picture counts.

    Args:
        path: Any file that Pillow reads.
        height: Pixels of the clip.
        width: Likewise.

    Returns:
        ``(height, width, 3)`` uint8, RGB.

    Raises:
        MediaError: There is no such file, it is no picture or a damaged one, or parts of it are
            transparent.
    """
    try:
        with Image.open(path) as picture:
            return fitted_picture(picture, height=height, width=width, name=str(path))
    except MediaError:
        raise
    except FileNotFoundError:
        raise MediaError(f"{path}: there is no such file.") from None
    except _DAMAGED as error:
        raise MediaError(f"{path}: cannot be read as a picture ({reason(error)}).") from error


def fitted_picture(
    picture: Image.Image, *, height: int, width: int, name: str = "the image"
) -> Tensor:
    """A picture of Pillow's as `read_picture` gives one; ``name`` is for errors."""
    try:
        picture.load()  # of one that was opened only, the file has not been read yet
    except _DAMAGED as error:
        raise MediaError(f"{name}: cannot be read as a picture ({reason(error)}).") from error
    if not min(picture.size):
        raise MediaError(f"{name}: it has no pixels.")
    if picture.mode not in _MODES:
        raise MediaError(
            f"{name}: its pixels are of the kind {picture.mode}; save it with 8 bits for each of "
            "red, green and blue."
        )
    clear = picture.has_transparency_data
    if clear and np.asarray(picture.convert("RGBA").getchannel("A")).min() < 255:
        raise MediaError(f"{name}: parts of it are transparent; save it on a background.")
    upright = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    rows, columns = upright.shape[:2]
    box = centre_crop(columns, rows, target_height=height, target_width=width)
    return cropped(upright, (columns, rows), box, height, width, name).to(torch.uint8)
