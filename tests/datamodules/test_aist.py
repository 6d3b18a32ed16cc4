import dataclasses
import math
import pickle
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from datamodules.aist import AIST_BASE_CAPTION, AIST_TEMPLATES, AISTDataset, aist_caption
from datamodules.aist_names import parse_name
from datamodules.clips import RawClip, SkippedClip
from datamodules.report import left_out_of
from datamodules.shots import num_crops
from musicinfuser.media.video_writing import write_video
from tests.datamodules.conftest import cut

SOLO = "gBR_sBM_c01_d04_mBR1_ch01.mp4"
SMALL = {"height": 16, "width": 24, "num_frames": 31}  # the aist box of 64x36 is 36x24
CLIP_SECONDS = 1.1


@pytest.mark.parametrize(
    ("seconds", "count"),
    [(2.8, 1), (12.0, 1), (12.01, 2), (24.0, 2), (24.01, 3), (36.0, 3), (48.0, 4), (48.05, 5)],
)
def test_five_crops_per_minute_rounded_up(seconds, count):
    assert num_crops(seconds, crops_per_minute=5.0) == count


def test_files_are_cut_as_often_as_the_authors_do(tmp_path, write_dance):
    names = {}
    for number, (seconds, count) in enumerate([(12.0, 1), (12.05, 2), (48.0, 4), (48.05, 5)]):
        path = write_dance(tmp_path / f"gBR_sBM_c01_d04_mBR1_ch{number:02d}.mp4", fps=20,
                           seconds=seconds)  # fmt: skip
        names[path] = count
    dataset = cut(AISTDataset, tmp_path, **SMALL)
    paths = [spec.path for spec in dataset.clips]
    assert {path: paths.count(path) for path in paths} == names


def test_clips_lie_inside_the_margins_and_are_named_by_number(tmp_path, write_dance):
    write_dance(tmp_path / SOLO, seconds=24.0)
    specs = cut(AISTDataset, tmp_path, crops_per_minute=100, edge_margin=0.1, **SMALL).clips
    assert [spec.clip_id for spec in specs] == [f"{SOLO[:-4]}.seg{k}" for k in range(40)]
    starts = torch.tensor([spec.start_seconds for spec in specs])
    earliest, latest = 2.4, 21.6 - CLIP_SECONDS
    assert earliest <= starts.min() < earliest + 3 and latest - 3 < starts.max() <= latest


def test_cuts_depend_on_seed_and_name_alone(tmp_path, write_dance):
    write_dance(tmp_path / SOLO, seconds=24.0)
    before = cut(AISTDataset, tmp_path, **SMALL).clips
    write_dance(tmp_path / "a" / "gBR_sBM_c01_d04_mBR1_ch00.mp4")
    after = cut(AISTDataset, tmp_path, **SMALL).clips
    assert len(after) == len(before) + 1
    assert [spec for spec in after if spec.path.name == SOLO] == before
    other = cut(AISTDataset, tmp_path, seed=1, files=[SOLO], **SMALL).clips
    assert [s.clip_id for s in other] == [s.clip_id for s in before]
    assert all(a.start_seconds != b.start_seconds for a, b in zip(other, before, strict=True))


def test_a_clip_shows_and_sounds_its_own_time(tmp_path, write_dance):
    write_dance(tmp_path / SOLO, seconds=12.0)
    dataset = cut(AISTDataset, tmp_path, **SMALL)
    clip = dataset[0]
    assert isinstance(clip, RawClip)
    # What is read adds which file it was read from.
    [spec] = dataset.clips
    assert replace(clip.spec, attributes=spec.attributes) == spec
    assert clip.spec.attributes.items() > spec.attributes.items()
    start = clip.spec.start_seconds
    assert clip.frames.shape == (31, 16, 24, 3) and clip.frames.dtype == torch.uint8
    levels = clip.frames.float().mean((1, 2, 3))
    times = start + torch.arange(31) / 30
    expected = 50 + torch.floor(times * 10 + 1e-3)
    assert (levels - expected).abs().max() < 2.5
    assert clip.waveform.shape == (17600,) and clip.waveform.dtype == torch.float32
    # The tone's amplitude is 0.9 t / 12, so its RMS tells the time.
    middle = clip.waveform[8000:9600].square().mean().sqrt() * math.sqrt(2) * 12 / 0.9
    assert middle == pytest.approx(start + 0.55, abs=0.15)


def test_the_spec_says_what_the_name_says(tmp_path, write_dance):
    write_dance(tmp_path / "10M" / "gHO_sFM_c10_d20_mHO3_ch11.mp4")
    (spec,) = cut(AISTDataset, tmp_path, **SMALL).clips
    assert (spec.source, spec.crop, spec.num_frames, spec.music) == ("aist", "aist", 31, "mHO3")
    assert spec.clip_id == "gHO_sFM_c10_d20_mHO3_ch11"
    assert spec.base_caption == AIST_BASE_CAPTION
    name = parse_name(spec.path)
    assert spec.caption in [
        aist_caption(name, template_index=index) for index in range(len(AIST_TEMPLATES))
    ]
    assert spec.attributes == {
        "file": "10M/gHO_sFM_c10_d20_mHO3_ch11.mp4",
        "genre": "HO",
        "situation": "FM",
        "camera": "c10",
        "dancers": "d20",
        "choreography": "ch11",
        "bpm": "125",
    }


def test_every_clip_of_a_long_file_has_its_own_caption(tmp_path, write_dance):
    write_dance(tmp_path / SOLO, seconds=24.0)
    specs = cut(AISTDataset, tmp_path, crops_per_minute=50, **SMALL).clips
    assert len(specs) == 20
    assert len({spec.caption for spec in specs}) == len(AIST_TEMPLATES)


def test_held_out_music_never_trains(tmp_path, write_dance):
    for name in (SOLO, "gBR_sFM_c01_d04_mBR0_ch15.mp4", "gBR_sBM_c01_d05_mBR0_ch02.mp4"):
        write_dance(tmp_path / name)
    specs = cut(AISTDataset, tmp_path, **SMALL).clips
    assert {(s.music, s.split, s.attributes.get("aistpp_split")) for s in specs} == {
        ("mBR1", "train", None),
        ("mBR0", "held_out", None),
        ("mBR0", "held_out", "test"),
    }


@pytest.fixture
def many_kinds(tmp_path, write_dance):
    """A folder with every kind of name, two broken files and one that is no dance."""
    first = write_dance(tmp_path / SOLO)
    for name in (
        "gBR_sBM_c02_d04_mBR1_ch01.mp4",
        "gMH_sMM_c10_d22_mMH5_ch12.mp4",
        "gLO_sGR_c01_d13_d14_d15_mLO0_ch01.mp4",
        "gLO_sGR_c01_d13_d14_d15_mLO2_ch01.mp4",
        "sSH_c01_v0.mp4",
        "sCY_c01_v3.mp4",
        "sBT_c01_d21_d31_v5.mp4",
        "other dance.mp4",
    ):
        (tmp_path / name).hardlink_to(first)
    (tmp_path / "gBR_sBM_c01_d04_mBR2_ch01.mp4").write_bytes(b"not a video")
    (tmp_path / "gBR_sBM_c01_d04_mBR2_ch02.mov").touch()
    (tmp_path / "._gBR_sBM_c01_d04_mBR2_ch01.mp4").write_bytes(b"a Mac's note")
    return tmp_path


def test_default_selection_is_that_of_the_authors(many_kinds):
    dataset = cut(AISTDataset, many_kinds, **SMALL)
    kept = {(s.attributes["situation"], s.attributes["camera"]) for s in dataset.clips}
    assert kept == {("BM", "c01"), ("MM", "c10"), ("GR", "c01")}
    assert dataset.num_not_selected == {
        "camera c02": 1,
        "situation SH": 1,
        "situation CY": 1,
        "situation BT": 1,
    }
    assert [skip.path.name for skip in dataset.skipped] == [
        "other dance.mp4",
        "gBR_sBM_c01_d04_mBR2_ch01.mp4",
        "gBR_sBM_c01_d04_mBR2_ch02.mov",
    ]
    assert dataset.skipped[1].reason.startswith("cannot be read: as video (")


def test_all_situations_and_cameras_on_demand(many_kinds):
    dataset = cut(AISTDataset, many_kinds, situations=None, cameras=None, **SMALL)
    assert dataset.num_not_selected == {} and len(dataset) == 8
    found = {s.clip_id: (s.music, s.split) for s in dataset.clips}
    assert found["sSH_c01_v0"] == ("mMH0", "train")
    assert found["sCY_c01_v3"] == (None, "held_out")
    assert found["sBT_c01_d21_d31_v5"] == (None, "train")
    assert len(cut(AISTDataset, many_kinds, situations=["SH"], **SMALL)) == 1


def test_summary_counts_clips_and_reasons(many_kinds):
    dataset = cut(AISTDataset, many_kinds, **SMALL)
    dataset.skipped.append(SkippedClip("aist", dataset.clips[0].path, "too quiet: -80 dBFS", "x"))
    groups = Counter(
        (s.attributes["genre"], s.attributes["camera"], s.split) for s in dataset.clips
    )
    assert groups == {
        ("BR", "c01", "train"): 1,
        ("LO", "c01", "held_out"): 1,
        ("LO", "c01", "train"): 1,
        ("MH", "c10", "train"): 1,
    }
    rows = left_out_of(dataset)
    assert all(row["source"] == "aist" for row in rows)
    assert {(r["kind"], r["reason"]): r["count"] for r in rows} == {
        ("skipped", "cannot be read"): 2,
        ("skipped", "not an AIST name"): 1,
        ("skipped", "too quiet"): 1,
        ("not selected", "camera c02"): 1,
        ("not selected", "situation SH"): 1,
        ("not selected", "situation CY"): 1,
        ("not selected", "situation BT"): 1,
    }


def test_files_that_cannot_be_cut_are_skipped_with_the_reason(tmp_path, write_dance):
    write_dance(tmp_path / SOLO)
    write_dance(tmp_path / "second copy" / SOLO)
    write_dance(tmp_path / "gBR_sBM_c01_d04_mBR1_ch02.mp4", seconds=1.2)
    write_dance(tmp_path / "gBR_sBM_c01_d04_mBR1_ch03.mp4", loudness=None)
    write_dance(tmp_path / "gBR_sBM_c01_d04_mBR1_ch04.mp4", height=20, width=32)
    dataset = cut(AISTDataset, tmp_path, **SMALL)
    assert [spec.path for spec in dataset.clips] == [tmp_path / SOLO]
    assert {skip.path.relative_to(tmp_path).as_posix(): skip.reason.partition(":")[0]
            for skip in dataset.skipped} == {
        f"second copy/{SOLO}": "same name as another file",
        "gBR_sBM_c01_d04_mBR1_ch02.mp4": "too short",
        "gBR_sBM_c01_d04_mBR1_ch03.mp4": "no sound",
        "gBR_sBM_c01_d04_mBR1_ch04.mp4": "too small",
    }  # fmt: skip
    assert len(cut(AISTDataset, tmp_path, allow_upscaling=True, **SMALL)) == 2
    assert len(cut(AISTDataset, tmp_path, edge_margin=0.0, **SMALL)) == 2


def test_a_centre_crop_may_be_larger_than_the_aist_box(tmp_path, write_dance):
    write_dance(tmp_path / SOLO, height=20, width=32)
    with pytest.raises(ValueError, match="too small"):
        cut(AISTDataset, tmp_path, **SMALL)
    clip = cut(AISTDataset, tmp_path, crop="centre", **SMALL)[0]
    assert clip.spec.crop == "centre" and clip.frames.shape == (31, 16, 24, 3)


def test_the_crop_is_applied(tmp_path):
    # The aist box of 64x36 takes rows 9 to 33 and columns 14 to 50.
    frames = torch.zeros(60, 36, 64, 3, dtype=torch.uint8)
    frames[:, 9:33, 14:50] = 255
    path = tmp_path / SOLO
    write_video(path, frames, fps=10, audio=torch.zeros(96000), audio_rate_hz=16000)
    inside = cut(AISTDataset, tmp_path, **SMALL)[0].frames
    assert inside[:, 2:-2, 2:-2].min() > 230 and inside.float().mean() > 230
    around = cut(AISTDataset, tmp_path, crop="centre", **SMALL)[0].frames
    assert around[:, :3].max() < 40


@pytest.mark.parametrize(("channel", "amplitude"), [("first", 0.0), ("mean", 0.3)])
def test_the_sound_is_the_mean_or_the_first_channel(tmp_path, channel, amplitude):
    frames = torch.full((60, 36, 64, 3), 90, dtype=torch.uint8)
    right = 0.6 * torch.sin(torch.arange(96000) / 6)
    sound = torch.stack([torch.zeros(96000), right])
    write_video(tmp_path / SOLO, frames, fps=10, audio=sound, audio_rate_hz=16000)
    clip = cut(AISTDataset, tmp_path, audio_channel=channel, **SMALL)[0]
    assert clip.waveform.abs().max() == pytest.approx(amplitude, abs=0.03)


def test_a_readable_copy_stands_in_for_a_broken_one(tmp_path, write_dance):
    (tmp_path / SOLO).write_bytes(b"not a video")
    copy = write_dance(tmp_path / "second copy" / SOLO)
    assert [spec.path for spec in cut(AISTDataset, tmp_path, **SMALL).clips] == [copy]


def test_a_file_damaged_in_the_middle_becomes_a_skipped_clip(tmp_path, write_dance):
    path = write_dance(tmp_path / SOLO, seconds=12.0)
    whole = cut(AISTDataset, tmp_path, **SMALL)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    skip = whole[0]
    assert isinstance(skip, SkippedClip)
    assert (skip.source, skip.path, skip.clip_id) == ("aist", path, SOLO[:-4])
    assert skip.reason.startswith("cannot be read: ") and SOLO not in skip.reason


def write_with_short_sound(path, *, video_seconds, audio_seconds):
    """An mp4 whose sound ends early, which the project's own writer does not make."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 36, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(int(video_seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.full((36, 64, 3), 99, np.uint8), format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = np.sin(np.arange(int(audio_seconds * 16000), dtype=np.float32) / 6)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def test_missing_sound_is_zero_and_noted(tmp_path):
    path = tmp_path / SOLO
    write_with_short_sound(path, video_seconds=6, audio_seconds=3)
    dataset = cut(AISTDataset, tmp_path, **SMALL)
    assert len(dataset) == 1
    for start, missing in [(1.5, None), (2.5, 0.6), (2.9, 1.0)]:
        dataset.clips[0] = dataclasses.replace(dataset.clips[0], start_seconds=start)
        clip = dataset[0]
        assert clip.waveform.shape == (17600,)
        note = clip.spec.attributes.get("audio_padded_seconds")
        if missing is None:
            assert note is None and clip.waveform[-160:].abs().max() > 0.5
        else:
            assert float(note) == pytest.approx(missing, abs=0.07)  # AAC ends on whole frames
            assert clip.waveform[-round(16000 * float(note)) :].abs().max() == 0
    dataset.clips[0] = dataclasses.replace(dataset.clips[0], start_seconds=4.0)
    assert dataset[0].reason.startswith("no sound:")


def test_a_dataset_survives_the_way_to_a_worker(tmp_path, write_dance):
    write_dance(tmp_path / "フォルダ with spaces" / SOLO)
    dataset = cut(AISTDataset, tmp_path, **SMALL)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.clips == dataset.clips
    assert torch.equal(copy[0].frames, dataset[0].frames)
    assert torch.equal(copy[0].waveform, dataset[0].waveform)


def test_files_restricts_by_name_or_path(tmp_path, write_dance):
    other = "gBR_sBM_c01_d04_mBR1_ch02.mp4"
    write_dance(tmp_path / "x" / SOLO)
    write_dance(tmp_path / "y" / other)
    for files in ([other], [f"y/{other}"]):
        assert [s.path.name for s in cut(AISTDataset, tmp_path, files=files, **SMALL).clips] == [
            other
        ]
    with pytest.raises(ValueError, match=r"names 1 videos that are not below .*z\.mp4"):
        cut(AISTDataset, tmp_path, files=[other, "z.mp4"], **SMALL)


def test_only_many_files_get_a_progress_bar(tmp_path, write_dance, capfd):
    first = write_dance(tmp_path / "gBR_sBM_c01_d04_mBR1_ch00.mp4")
    for number in range(1, 51):
        (tmp_path / f"gBR_sBM_c01_d04_mBR1_ch{number:02d}.mp4").hardlink_to(first)
    assert len(cut(AISTDataset, tmp_path, **SMALL)) == 51
    assert "probing videos" in capfd.readouterr().err
    (tmp_path / "gBR_sBM_c01_d04_mBR1_ch50.mp4").unlink()
    assert len(cut(AISTDataset, tmp_path, **SMALL)) == 50
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cameras": ["c11"]}, "cameras: no such code as 'c11'"),
        ({"situations": ["BA"]}, "situations: no such code as 'BA'"),
        ({"crop": "middle"}, "crop must be"),
        ({"audio_channel": "left"}, "audio_channel must be"),
        ({"edge_margin": 0.5}, "edge_margin is 0.5; it must be at least 0 and below 0.5"),
        ({"crops_per_minute": 0}, "crops_per_minute is 0; it must be above 0"),
        ({"num_frames": -1}, "num_frames is -1; it must be above 0"),
        ({"cameras": ["c05"]}, r"no selected video \(1 by camera c01 left out\)"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, write_dance, settings, message):
    write_dance(tmp_path / SOLO)
    with pytest.raises(ValueError, match=message):
        cut(AISTDataset, tmp_path, **(SMALL | settings))


def test_folders_without_a_usable_video_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        cut(AISTDataset, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no video"):
        cut(AISTDataset, tmp_path)
    (tmp_path / SOLO).write_bytes(b"no video")
    with pytest.raises(ValueError, match=f"No clip can be cut from the 1 videos .*{SOLO}"):
        cut(AISTDataset, tmp_path)
