import os
from pathlib import Path

import pytest

from datamodules.folders import find_videos


def test_videos_are_found_in_order_and_once(tmp_path: Path) -> None:
    for name in ("b/x.mp4", "a.MP4", ".hidden.mp4", ".dot/y.mp4", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    assert find_videos(tmp_path) == [tmp_path / "a.MP4", tmp_path / "b/x.mp4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no video \(\.mp4, "):
        find_videos(tmp_path / "empty")


def test_a_folder_that_cannot_be_listed_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open/x.mp4", "shut/y.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scan = os.scandir

    def refuse(path: str) -> object:
        # Permissions do not stop an administrator, who may run the tests.
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(UserWarning, match=r"shut is left out: it cannot be listed \(Permission"):
        assert find_videos(tmp_path) == [tmp_path / "open" / "x.mp4"]
