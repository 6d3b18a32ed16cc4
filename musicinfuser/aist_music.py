"""The tempi of the AIST Dance Video Database's music, which its names carry."""

import re

_OTHERS = (80, 90, 100, 110, 120, 130)
_HOUSE = (110, 115, 120, 125, 130, 135)
_GENRES = ("BR", "PO", "LO", "MH", "LH", "HO", "WA", "KR", "JS", "JB")
MUSIC_BPM = {
    f"m{genre}{number}": bpm
    for genre in _GENRES
    for number, bpm in enumerate(_HOUSE if genre == "HO" else _OTHERS)
}
"""Code of a piece, such as ``mBR0``, to its tempo in beats per minute, 60 entries."""

_CODE = re.compile(rf"(?<![A-Za-z0-9])(m(?:{'|'.join(_GENRES)})[0-5])(?![A-Za-z0-9])")


def music_code(name: str) -> str | None:
    """The code of the one piece that a name holds, such as ``gBR_sBM_c01_d04_mBR0_ch01``."""
    codes = set(_CODE.findall(name.replace("_", " ")))
    return codes.pop() if len(codes) == 1 else None
