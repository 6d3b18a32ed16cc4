"""The encoding job through train.py: complete and repeatable."""

import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from datamodules.encoding import EncodingDataModule
from lightning_modules.encoding import EncodedClip
from musicinfuser import safetensors_files
from musicinfuser.media.latents import CacheError, caption_path, read_caption, read_headers
from tests.conftest import AIST_FILES, ROOT, YOUTUBE_FILES, encode_arguments
from tests.ranks import run_alone
from train import from_shell, main

NUM_CLIPS = len(AIST_FILES) + len(YOUTUBE_FILES)


class KillAfter(L.Callback):
    """Kills the process once so many clips are written."""

    def __init__(self, num_clips: int) -> None:
        self.num_clips = num_clips

    def on_predict_batch_end(self, trainer, pl_module, outputs, *args) -> None:
        self.num_clips -= sum(isinstance(output, EncodedClip) for output in outputs)
        if self.num_clips == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def contents(cache: Path) -> dict[str, tuple]:
    """Every file's header and tensors, to the bit; safetensors writes headers in any order."""
    found = {}
    for path in cache.rglob("[!.]*.safetensors"):
        with safe_open(str(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            found[path.relative_to(cache).as_posix()] = (
                file.metadata(),
                {name: (str(t.dtype), t.shape, t.numpy().tobytes()) for name, t in tensors.items()},
            )
    return found


@pytest.fixture
def cache(small_cache: Path, tmp_path: Path) -> Path:
    """A copy of the session's cache that a test may spoil."""
    return Path(shutil.copytree(small_cache, tmp_path / "cache"))


def test_one_file_per_clip_with_what_was_encoded(small_cache: Path, media: Path) -> None:
    headers = {h.clip_id: h for h in read_headers(small_cache)}
    assert len(headers) == NUM_CLIPS
    assert {h.clip_id for h in headers.values() if h.source == "aist"} == set(AIST_FILES)
    one = headers["gBR_sBM_c01_d04_mBR0_ch02"]
    assert (one.music, one.split, one.source) == ("mBR0", "held_out", "aist")
    assert "dancing Break" in one.caption or "Break" in one.caption
    assert one.base_caption == "a professional dancer dancing in a studio with a white backdrop"
    assert one.attributes["file"] == str(media / "aist" / "gBR_sBM_c01_d04_mBR0_ch02.mp4")
    assert one.attributes["camera"] == "c01" and one.attributes["crop"] == "aist"
    assert 0.06 <= float(one.attributes["start_seconds"]) <= 0.95 * 1.2 - 0.3
    wild = {h.caption: h for h in headers.values() if h.source == "youtube"}
    assert set(wild) == {f"a square that moves, number {i}" for i in range(3)}
    assert {(h.music, h.split, h.base_caption) for h in wild.values()} == {
        (None, "train", "a dance video")
    }
    recipe = one.recipe
    assert (recipe.num_frames, recipe.height, recipe.width, recipe.fps) == (7, 32, 32, 30.0)
    assert (recipe.audio_channel, recipe.dtype, recipe.max_text_tokens) == ("mean", "float32", 256)
    assert len(recipe.latents_mean) == len(recipe.latents_std) == 12
    assert {h.recipe for h in headers.values()} == {recipe}
    for header in headers.values():
        tensors = load_file(header.path)
        assert tensors["latent_mean"].shape == tensors["latent_logvar"].shape == (12, 2, 4, 4)
        # 0.3 s of sound at 50 tokens per second, less the length of the first window.
        assert tensors["audio"].shape == (14, 96) and tensors["audio"].dtype == torch.float32
        assert all(t.isfinite().all() and t.std() > 0 for t in tensors.values())


def test_captions_are_stored_once_each(small_cache: Path) -> None:
    headers = read_headers(small_cache)
    captions = {h.caption for h in headers} | {h.base_caption for h in headers}
    assert len(list((small_cache / "captions").glob("*.safetensors"))) == len(captions)
    for caption in captions:
        # The small tokenizer works on bytes and adds an end.
        assert read_caption(small_cache, caption).shape == (len(caption.encode()) + 1, 64)


def test_a_second_run_encodes_nothing_and_says_so(
    cache: Path, small_parts: Path, media: Path, capsys
) -> None:
    before = {p: p.stat().st_mtime_ns for p in cache.rglob("*.safetensors")}
    main(encode_arguments(small_parts, media, cache))
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*.safetensors")} == before
    report = capsys.readouterr().out
    assert f"encoded 0 clips, {NUM_CLIPS} were there already." in report
    assert "| aist    | held_out | BR    | c01    | 32x32 |      1 |     1 |" in report


def test_a_deleted_clip_comes_back_to_the_bit(
    cache: Path, small_parts: Path, media: Path, capsys
) -> None:
    before = contents(cache)
    gone = cache / "clips" / "aist" / f"{AIST_FILES[2]}.safetensors"
    gone.unlink()
    times = {p: p.stat().st_mtime_ns for p in cache.rglob("*.safetensors")}
    main(encode_arguments(small_parts, media, cache))
    assert contents(cache) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert f"encoded 1 clips, {NUM_CLIPS - 1} were there already." in capsys.readouterr().out


def test_a_deleted_caption_comes_back(cache: Path, small_parts: Path, media: Path) -> None:
    before = contents(cache)
    caption_path(cache, "a square that moves, number 1").unlink()
    main(encode_arguments(small_parts, media, cache))
    assert contents(cache) == before


def test_another_seed_is_refused_because_clips_start_elsewhere(
    cache: Path, small_parts: Path, media: Path
) -> None:
    arguments = [*encode_arguments(small_parts, media, cache), "--seed_everything=7"]
    with pytest.raises(CacheError, match=r"was made otherwise \(start_seconds: .*encode into"):
        main(arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--data.init_args.audio_channel=first", "audio_channel: mean, not first"),
        ("--data.init_args.decoding=plain", "decoding: corrected, not plain"),
        ("--data.init_args.num_frames=13", "num_frames: 7, not 13"),
        (
            "--model.init_args.encoders.max_text_tokens=9",
            r"captions in \S+ were made otherwise \(max_text_tokens: 256, not 9",
        ),
        (
            "--model.init_args.encoders.dtype=bfloat16",
            r"captions in \S+ were made otherwise \(dtype: float32, not bfloat16",
        ),
    ],
)
def test_another_recipe_is_refused(
    cache: Path, small_parts: Path, media: Path, change: str, message: str
) -> None:
    before = contents(cache)
    with pytest.raises(CacheError, match=message):
        main([*encode_arguments(small_parts, media, cache), change])
    assert contents(cache) == before


def test_other_encoders_are_refused(
    cache: Path, small_parts: Path, media: Path, tmp_path: Path
) -> None:
    parts = Path(shutil.copytree(small_parts, tmp_path / "parts"))
    spoil(parts / "vae")
    with pytest.raises(CacheError, match="vae: [0-9a-f]{16}, not [0-9a-f]{16}"):
        main(encode_arguments(parts, media, cache))


def spoil(folder: Path) -> None:
    """Change one byte of a part's weights."""
    path = folder / next(p.name for p in folder.iterdir() if p.suffix == ".safetensors")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "audio_encoder"])
def test_training_refuses_a_cache_of_other_encoders(
    run_cli, small_cache: Path, small_parts: Path, tmp_path: Path, part: str
) -> None:
    parts = Path(shutil.copytree(small_parts, tmp_path / "parts"))
    spoil(parts / part)
    for verb in ("fit", "validate"):
        with pytest.raises(
            CacheError, match=rf"other encoders \({part}: \w+ in the cache, \w+ in the c"
        ):
            run_cli(
                verb,
                f"--model.init_args.encoders.mochi={parts}",
                f"--model.init_args.encoders.audio={parts}",
                cache=small_cache,
            )


def test_a_killed_run_continues(
    small_parts: Path, small_cache: Path, media: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    callbacks = (
        "[{class_path: callbacks.CacheWriter},{class_path: tests.datamodules.test_encoding."
        "KillAfter, init_args: {num_clips: 4}}]"
    )
    arguments = encode_arguments(small_parts, media, cache)
    killed = [*arguments, f"--trainer.callbacks={callbacks}"]
    process = run_alone(tmp_path, killed, cwd=ROOT)
    assert process.exit_code == -signal.SIGKILL, process.errors[-2000:]
    written = contents(cache)
    assert len([name for name in written if name.startswith("clips/")]) == 4
    # What a kill in the middle of a write leaves behind.
    (cache / "clips" / "aist" / f".{'0' * 32}.safetensors").write_bytes(b"half a fi")
    main(arguments)
    finished = contents(cache)
    assert finished == contents(small_cache)
    assert {name: finished[name] for name in written} == written
    assert len(read_headers(cache)) == NUM_CLIPS


@pytest.fixture
def clip_encoder(small_parts: Path):
    from lightning_modules import ClipEncoder
    from musicinfuser.networks.encoders import EncodersSpec

    return ClipEncoder(
        EncodersSpec(str(small_parts), str(small_parts), "audio_encoder", dtype="float32")
    )


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shards_are_disjoint_and_complete(
    media: Path, tmp_path: Path, clip_encoder, world_size: int
) -> None:
    from datamodules import AISTDataset, YouTubeDataset

    found, captions = [], []
    for rank in range(world_size):
        data = EncodingDataModule(
            str(tmp_path / "cache"),
            [
                lambda settings: AISTDataset(settings, media / "aist"),
                lambda settings: YouTubeDataset(settings, media / "youtube"),
            ],
            num_frames=7,
            height=32,
            width=32,
            num_workers=0,
        )
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=world_size, is_global_zero=rank == 0
        )
        data.setup("predict")
        recipe = clip_encoder.recipe_of(data.settings)
        data.leave_out_encoded(recipe, audio_rate_hz=8_000)
        captions.append(data.captions[rank::world_size])
        items = [item for batch in data.predict_dataloader() for item in batch]
        assert items[: len(captions[-1])] == captions[-1], "texts come first"
        clips = items[len(captions[-1]) :]
        assert {len(clip.waveform) for clip in clips} == {2400}, "0.3 s at the encoder's rate"
        found.append([(clip.spec.source, clip.spec.clip_id) for clip in clips])
    assert sorted(text for share in captions for text in share) == data.captions
    together = [clip for shard in found for clip in shard]
    assert len(together) == len(set(together)) == NUM_CLIPS
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_what_all_sources_share_is_not_set_in_one(
    small_parts: Path, media: Path, tmp_path: Path, capsys
) -> None:
    arguments = encode_arguments(small_parts, media, tmp_path / "cache")
    arguments[-1] = arguments[-1].replace("/aist}", "/aist, num_frames: 13}")
    with pytest.raises(SystemExit):
        main(arguments)
    message = "num_frames is not known; it is shared by all sources now: set data.num_frames."
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--data.init_args.sources=[]", "data.sources is empty"),
        ("--data.init_args.num_frames=8", "num_frames is 8"),
        ("--data.init_args.width=40", "width is 40 px"),
        (
            "--data.init_args.sources=[{class_path: datamodules.AISTDataset, "
            "init_args: {root: /no/such}}]",
            "/no/such",
        ),
    ],
)
def test_bad_settings(small_parts: Path, media: Path, tmp_path: Path, change: str, message: str):
    with pytest.raises(ValueError, match=message):
        main([*encode_arguments(small_parts, media, tmp_path / "cache"), change])


def test_clips_of_the_same_name_are_refused(small_parts: Path, media: Path, tmp_path: Path) -> None:
    arguments = encode_arguments(small_parts, media, tmp_path / "cache")
    twice = f"{{class_path: datamodules.AISTDataset, init_args: {{root: {media}/aist}}}}"
    arguments[-1] = f"--data.init_args.sources=[{twice}, {twice}]"
    with pytest.raises(ValueError, match="8 clips of the same name, e.g. gBR_sBM_c01_d04_mBR0"):
        main(arguments)


@pytest.mark.parametrize("num_files", [2, 14])
def test_a_full_disk_ends_the_job_with_one_sentence(
    small_parts: Path, media: Path, tmp_path: Path, monkeypatch, capsys, num_files: int
) -> None:
    """While captions are written, and while clips are."""
    cache, save, written = tmp_path / "cache", safetensors_files.save_file, []

    def limited(tensors: dict, path: Path, **options: object) -> None:
        save(tensors, path, **options)
        written.append(path)
        if len(written) > num_files:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors_files, "save_file", limited)
    monkeypatch.setattr("sys.argv", ["train.py", *encode_arguments(small_parts, media, cache)])
    with pytest.raises(SystemExit) as left:
        from_shell()
    sentence = str(left.value)
    assert re.fullmatch(
        rf"train\.py: {cache}/\S+\.safetensors: cannot be written \(No space left on device\); "
        r"make room, then repeat the command\.",
        sentence,
    )
    assert (f"{cache}/clips" in sentence) == (num_files > 12)
    whole = [path for path in cache.rglob("*.safetensors") if not path.name.startswith(".")]
    assert len(whole) == num_files
    assert not list(cache.rglob(".*")), "nothing is half-written"
