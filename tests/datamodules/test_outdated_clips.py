"""Clips whose videos are gone, or are others than when they were encoded."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from datamodules.encoding import find_outdated
from musicinfuser.fingerprint import FileIdentity
from musicinfuser.label_files import LabelError
from musicinfuser.media.latents import (
    GONE,
    OUTDATED_LIST_NAME,
    REPLACED,
    CacheError,
    OutdatedClip,
    clip_paths,
    read_headers,
    read_outdated,
    write_outdated,
)
from tests.conftest import AIST_FILES, YOUTUBE_FILES, encode_arguments, write_moving_square
from tests.handmade_cache import write_handmade_clip
from train import main

NUM_CLIPS = len(AIST_FILES) + len(YOUTUBE_FILES)


def latents(cache: Path) -> dict[str, bytes]:
    return {
        path.stem: load_file(path)["latent_mean"].numpy().tobytes() for path in clip_paths(cache)
    }


def test_other_and_missing_videos_through_the_job(
    small_cache: Path, small_parts: Path, media: Path, tmp_path: Path, run_cli, capsys, caplog
) -> None:
    """In a folder that was moved since, as its cache was."""
    folder = Path(shutil.copytree(media, tmp_path / "media"))
    cache = Path(shutil.copytree(small_cache, tmp_path / "cache"))
    before = latents(cache)
    other = folder / "aist" / f"{AIST_FILES[0]}.mp4"
    write_moving_square(other, number=9)
    os.utime(folder / "aist" / f"{AIST_FILES[1]}.mp4", (1, 1))
    gone = folder / "youtube" / f"{YOUTUBE_FILES[0]}.mp4"
    gone.rename(tmp_path / gone.name)
    main(encode_arguments(small_parts, folder, cache))
    printed = capsys.readouterr().out
    assert f"encoded 1 clips, {NUM_CLIPS - 2} were there already." in printed
    assert "1 clips were encoded anew: their videos have changed." in printed
    after = latents(cache)
    assert {name for name in before if after[name] != before[name]} == {AIST_FILES[0]}
    (left_out,) = read_outdated(cache)
    assert (left_out.source, left_out.reason) == ("youtube", GONE)
    assert Path(left_out.file).name == gone.name
    assert f"left out of training {left_out.clip_id}: {GONE}" in printed
    counted = {header.clip_id for header in read_headers(cache)}
    assert before.keys() - counted == {left_out.clip_id}
    assert f"{NUM_CLIPS - 1} clips of {NUM_CLIPS - 1} videos" in printed

    # Training needs the cache alone.
    alone = Path(shutil.copytree(cache, tmp_path / "elsewhere" / "cache"))
    run_cli("validate", "--ckpt_path=null", cache=alone)
    assert f"1 clips of {alone} are left out: their videos are gone" in caplog.text
    assert {header.clip_id for header in read_headers(alone)} == counted

    (tmp_path / gone.name).rename(gone)
    main(encode_arguments(small_parts, folder, cache))
    assert f"encoded 0 clips, {NUM_CLIPS} were there already." in capsys.readouterr().out
    assert read_outdated(cache) == [] and len(read_headers(cache)) == NUM_CLIPS


@pytest.fixture
def world(tmp_path: Path) -> SimpleNamespace:
    """A cache of clips of two folders, one clip per video of the contents a, b, c and d."""
    cache, videos = tmp_path / "cache", {}
    for name in ("one/a.mp4", "one/sub/b.mp4", "two/c.mp4", "old/d.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.stem.encode())
        videos[path.stem] = path
        root = tmp_path / name.split("/")[0]
        known = FileIdentity.of(path).as_attributes() | {"root": str(root)}
        attributes = {"file": str(path)} | ({} if root.name == "old" else known)
        write_handmade_clip(cache, path.stem, attributes=attributes)

    def dataset(root: str, *clips: str) -> SimpleNamespace:
        """A folder as it is now, with those clips."""
        found = sorted(Path(tmp_path, root).rglob("*.mp4"))
        specs = [
            SimpleNamespace(source="aist", clip_id=path.stem, path=path)
            for path in found
            if path.stem in clips
        ]
        return SimpleNamespace(source="aist", root=Path(tmp_path, root), videos=found, clips=specs)

    def outdated(*datasets: SimpleNamespace) -> dict[str, str]:
        return {clip.clip_id: clip.reason for clip in find_outdated(cache, datasets)}

    return SimpleNamespace(cache=cache, videos=videos, dataset=dataset, outdated=outdated)


def test_only_folders_that_are_looked_at_are_judged(world: SimpleNamespace) -> None:
    assert world.outdated(world.dataset("one", "a", "b")) == {}
    for path in world.videos.values():
        if path.stem != "a":
            path.unlink()
    assert world.outdated(world.dataset("one", "a")) == {"b": GONE}
    assert world.outdated(world.dataset("two")) == {"c": GONE}
    # A clip that does not say where it comes from lies below a folder, or is not judged.
    assert world.outdated(world.dataset("old")) == {"d": GONE}
    assert find_outdated(world.cache / "none", [world.dataset("one")]) == []


def test_what_is_not_selected_stays_unless_its_video_is_another(world: SimpleNamespace) -> None:
    assert world.outdated(world.dataset("one", "a")) == {}
    world.videos["b"].write_bytes(b"x")
    assert world.outdated(world.dataset("one", "a")) == {"b": REPLACED}
    world.videos["d"].write_bytes(b"x")
    assert world.outdated(world.dataset("old", "d")) == {}, "nothing is known of its video"


def test_another_video_of_the_same_size_and_time_is_another(world: SimpleNamespace) -> None:
    for name, content in (("a", b"x"), ("b", b"b")):
        video = world.videos[name]
        times = video.stat().st_atime_ns, video.stat().st_mtime_ns
        video.write_bytes(content)
        os.utime(video, ns=times)
    for clip in (world.cache / "clips").rglob("*.safetensors"):
        os.utime(clip, ns=(1, 1))  # clocks of file systems are coarse
    assert world.outdated(world.dataset("one", "a", "b")) == {"a": REPLACED}


def test_what_was_listed_of_another_folder_stays_listed(world: SimpleNamespace) -> None:
    world.videos["c"].unlink()
    write_outdated(world.cache, find_outdated(world.cache, [world.dataset("two")]))
    assert world.outdated(world.dataset("one", "a", "b")) == {"c": GONE}
    assert [header.clip_id for header in read_headers(world.cache)] == ["a", "b", "d"]


def test_a_clip_that_was_encoded_anew_counts(world: SimpleNamespace) -> None:
    world.videos["c"].write_bytes(b"another")
    write_outdated(world.cache, find_outdated(world.cache, [world.dataset("two", "c")]))
    assert [header.clip_id for header in read_headers(world.cache)] == ["a", "b", "d"]
    attributes = FileIdentity.of(world.videos["c"]).as_attributes()
    write_handmade_clip(world.cache, "c", attributes=attributes)
    assert [header.clip_id for header in read_headers(world.cache)] == ["a", "b", "c", "d"]


def test_a_cache_without_a_clip_that_counts(world: SimpleNamespace) -> None:
    clips = [OutdatedClip.of(header, GONE) for header in read_headers(world.cache)]
    write_outdated(world.cache, clips)
    with pytest.raises(CacheError, match="holds no clip that counts: all 4 are named in outdated"):
        read_headers(world.cache)
    (world.cache / OUTDATED_LIST_NAME).write_text(json.dumps({"clip_id": "a"}))
    with pytest.raises(LabelError, match="line 1: is no line of outdated clips"):
        read_headers(world.cache)


def test_size_time_and_content_decide(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    known = FileIdentity.of(path)
    assert FileIdentity.from_attributes(known.as_attributes()) == known
    assert FileIdentity.from_attributes({"file_bytes": "3"}) is None
    assert known.is_that_of(path)
    os.utime(path, ns=(5, 5))
    assert known.is_that_of(path), "only its time differs"
    path.write_bytes(b"two")
    assert not known.is_that_of(path), "of the same size"
    path.write_bytes(b"longer")
    assert not known.is_that_of(path)
    os.utime(path, ns=(known.modified_ns, known.modified_ns))
    assert not known.is_that_of(path), "of the same time"
    path.unlink()
    assert not known.is_that_of(path)
    os.mkfifo(path)
    assert not known.is_that_of(path)
