import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from musicinfuser.media.latents import (
    CacheError,
    caption_path,
    check_caption_encoder,
    clip_path,
    read_caption,
    read_clip,
    read_clip_header,
    read_headers,
    write_caption,
    write_clip,
)
from tests.conftest import ROOT
from tests.handmade_cache import RECIPE, header, write_handmade_clip

ODD_CAPTIONS = ("ダンス、踊る", "été à «Nice» 💃🏽", 'a "quoted"\nline\twith \\ and {braces}', "")


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def write_any(cache: Path, clip_id: str, **changes) -> None:
    write_clip(
        header(cache, clip_id, **changes),
        latent_mean=torch.zeros(1),
        latent_logvar=torch.zeros(1),
        audio=torch.zeros(1),
    )


@pytest.mark.parametrize("caption", ODD_CAPTIONS)
def test_a_clip_comes_back_as_it_was(tmp_path: Path, caption: str) -> None:
    made = header(tmp_path, "clip", caption=caption, music=None, attributes={"町": "東京", "a": ""})
    stream = torch.Generator().manual_seed(0)
    tensors = {
        "latent_mean": torch.randn(12, 2, 4, 4, generator=stream).bfloat16(),
        "latent_logvar": torch.randn(12, 2, 4, 4, generator=stream),
        # Not contiguous, as a slice of a batch may be.
        "audio": torch.randn(96, 14, generator=stream).T,
    }
    write_clip(made, **tensors)
    assert read_clip_header(made.path) == made
    found = read_clip(made.path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    assert files(tmp_path) == ["clips/aist/clip.safetensors"]


def test_a_caption_is_stored_once(tmp_path: Path) -> None:
    for caption in ODD_CAPTIONS:
        write_caption(tmp_path, caption, torch.full((3, 64), float(len(caption))))
    assert len(files(tmp_path)) == len(ODD_CAPTIONS)
    write_caption(tmp_path, ODD_CAPTIONS[0], torch.zeros(1, 64))
    assert len(files(tmp_path)) == len(ODD_CAPTIONS)
    for caption in ODD_CAPTIONS:
        assert torch.equal(
            read_caption(tmp_path, caption), torch.full((3, 64), float(len(caption)))
        )


def test_headers_come_sorted_by_source_and_clip(tmp_path: Path) -> None:
    for source, clip_id in (("youtube", "a"), ("aist", "c"), ("aist", "b")):
        write_handmade_clip(tmp_path, clip_id, source=source)
    assert [(h.source, h.clip_id) for h in read_headers(tmp_path)] == [
        ("aist", "b"),
        ("aist", "c"),
        ("youtube", "a"),
    ]


def test_clips_of_a_cache_may_differ_in_shape_alone(tmp_path: Path) -> None:
    write_handmade_clip(tmp_path, "a")
    write_handmade_clip(tmp_path, "b", recipe=RECIPE.of_shape(13, 64, 48))
    one, other = read_headers(tmp_path)
    assert (one.size, one.shape) == ((32, 32), (7, 32, 32))
    assert (other.size, other.shape) == ((64, 48), (13, 64, 48))
    assert read_clip(other.path)["latent_mean"].shape == (12, 3, 8, 6)
    write_handmade_clip(tmp_path, "c", recipe=replace(RECIPE, num_frames=13, fps=25.0))
    with pytest.raises(CacheError, match=r"encoded differently \(fps: 25.0, not 30.0\)"):
        read_headers(tmp_path)


def test_headers_are_what_they_were_before_clips_had_buckets(tmp_path: Path) -> None:
    """Old caches stay readable, and new ones of one size are the same to the byte."""
    path = write_handmade_clip(tmp_path, "a").path
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    assert metadata == {
        "recipe": '{"num_frames": 7, "height": 32, "width": 32, "fps": 30.0, "audio_channel": '
        '"mean", "dtype": "float32", "max_text_tokens": 256, "vae": "vae of one kind", '
        '"text_encoder": "a text encoder", "audio_encoder": "an audio encoder", "latents_mean": '
        f"{json.dumps(RECIPE.latents_mean)}, "
        f'"latents_std": {json.dumps(RECIPE.latents_std)}, "version": 1}}',
        "clip": '{"source": "aist", "clip_id": "a", "caption": "caption of a", "base_caption": '
        '"a dance video", "music": "mBR1", "split": "train", "attributes": {"genre": "BR"}}',
    }


def test_the_shipped_cache_is_read() -> None:
    assert {h.shape for h in read_headers(ROOT / "assets" / "small-cache")} == {(73, 64, 64)}


@pytest.mark.parametrize("made", ["no folder", "an empty folder"])
def test_an_empty_cache_says_what_to_do(tmp_path: Path, made: str) -> None:
    cache = tmp_path / "cache"
    if made == "an empty folder":
        (cache / "clips" / "aist").mkdir(parents=True)
    with pytest.raises(CacheError, match=r"cache holds no encoded clips; run .*encode\.yaml"):
        read_headers(cache)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fps", 25.0),
        ("audio_channel", "first"),
        ("dtype", "bfloat16"),
        ("vae", "vae of another kind"),
        ("latents_std", (2.0,) * 12),
    ],
)
def test_a_mixture_of_recipes_is_refused(tmp_path: Path, key: str, value: object) -> None:
    write_handmade_clip(tmp_path, "a")
    write_handmade_clip(tmp_path, "b", recipe=replace(RECIPE, **{key: value}))
    with pytest.raises(CacheError) as error:
        read_headers(tmp_path)
    message = str(error.value)
    assert f"{tmp_path}/clips/aist/b.safetensors" in message
    assert f"({key}: {value}, not {getattr(RECIPE, key)})" in message


def test_differences_name_every_field() -> None:
    other = replace(RECIPE, height=64, vae="x")
    assert RECIPE.differences(other) == ["height: 32, not 64", "vae: vae of one kind, not x"]
    assert RECIPE.differences(replace(RECIPE)) == []


def damaged(kind: str, path: Path) -> None:
    whole = path.read_bytes()
    metadata = {"recipe": json.dumps(asdict(RECIPE)), "clip": json.dumps({"source": "aist"})}
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "half":
            path.write_bytes(whole[: len(whole) // 2])
        case "without its last byte":
            path.write_bytes(whole[:-1])
        case "garbage":
            path.write_bytes(os.urandom(len(whole)))
        case "text":
            path.write_text("no tensors here")
        case "folder":
            path.unlink()
            path.mkdir()
        case "no header":
            save_file({"latent_mean": torch.zeros(1)}, path)
        case "no JSON":
            save_file({"latent_mean": torch.zeros(1)}, path, metadata | {"recipe": "{"})
        case "no recipe":
            save_file({"latent_mean": torch.zeros(1)}, path, metadata | {"recipe": "[]"})
        case "half a description":
            save_file({"latent_mean": torch.zeros(1)}, path, metadata)


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "half",
        "without its last byte",
        "garbage",
        "text",
        "folder",
        "no header",
        "no JSON",
        "no recipe",
        "half a description",
    ],
)
def test_a_broken_clip_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    write_handmade_clip(tmp_path, "a")
    path = write_handmade_clip(tmp_path, "b").path
    damaged(kind, path)
    for read in (lambda: read_clip_header(path), lambda: read_headers(tmp_path)):
        with pytest.raises(CacheError) as error:
            read()
        message = str(error.value)
        assert message.startswith(f"{path} is not an encoded clip")
        assert "delete it and encode again" in message and "\n" not in message


@pytest.mark.parametrize("kind", ["empty", "half", "garbage"])
def test_broken_tensors_are_one_clear_error(tmp_path: Path, kind: str) -> None:
    path = write_handmade_clip(tmp_path, "a").path
    damaged(kind, path)
    with pytest.raises(CacheError, match=r"a\.safetensors cannot be read .*encode again"):
        read_clip(path)
    write_caption(tmp_path, "words", torch.zeros(3, 64))
    damaged(kind, caption_path(tmp_path, "words"))
    with pytest.raises(
        CacheError, match=r"captions/.*of the caption 'words', cannot be read .*encode again"
    ):
        read_caption(tmp_path, "words")


def test_a_missing_caption_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="has no features for the caption 'words'; run the encode"):
        read_caption(tmp_path, "words")


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = clip_path(tmp_path, "aist", "a")
    write_any(tmp_path, "a", recipe=replace(RECIPE, version=2))
    with pytest.raises(CacheError, match="has cache format 2, this program writes 1; encode into"):
        read_clip_header(path)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """Saving fails in the middle: tensors that share memory cannot be stored."""
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        write_clip(
            header(tmp_path, "a"), latent_mean=shared, latent_logvar=shared, audio=torch.zeros(1)
        )
    assert files(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_handmade_clip(tmp_path, "a", number=3.0).path
    before, shared = path.read_bytes(), torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        write_clip(
            header(tmp_path, "a"), latent_mean=shared, latent_logvar=shared, audio=torch.zeros(1)
        )
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_the_rest_of_a_killed_write_is_no_clip(tmp_path: Path) -> None:
    path = write_handmade_clip(tmp_path, "a").path
    (path.parent / ".0123456789abcdef.safetensors").write_bytes(path.read_bytes()[:100])
    assert [h.clip_id for h in read_headers(tmp_path)] == ["a"]


def test_the_files_are_plain_safetensors(tmp_path: Path) -> None:
    made = write_handmade_clip(tmp_path, "a", number=2.0)
    assert made.path == tmp_path / "clips" / "aist" / "a.safetensors"
    assert {n: t.shape for n, t in load_file(made.path).items()} == {
        "latent_mean": (12, 2, 4, 4),
        "latent_logvar": (12, 2, 4, 4),
        "audio": (14, 96),
    }
    assert load_file(caption_path(tmp_path, "a dance video"))["features"].shape == (13, 64)


def test_captions_of_another_text_encoder_are_refused(tmp_path: Path) -> None:
    check_caption_encoder(tmp_path, RECIPE)
    check_caption_encoder(tmp_path, RECIPE)
    check_caption_encoder(tmp_path, replace(RECIPE, vae="another"))
    with pytest.raises(CacheError, match=r"text_encoder: .*, not another\); encode into another"):
        check_caption_encoder(tmp_path, replace(RECIPE, text_encoder="another"))
