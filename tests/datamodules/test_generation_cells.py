from pathlib import Path

import pytest

from datamodules.aist_names import tables
from datamodules.generation_cells import CellsSpec, held_out_tracks, make_cells
from musicinfuser.cells import Cell

HELD_OUT = (
    "mBR0", "mHO5", "mJB5", "mJS3", "mKR2", "mLH4", "mLO2", "mMH3", "mPO1", "mWA0",
)  # fmt: skip


def cells(spec: CellsSpec, **changes) -> list[Cell]:
    return make_cells(spec, **({"num_frames": 7, "height": 32, "width": 48} | changes))


@pytest.fixture
def tracks(tmp_path: Path) -> list[str]:
    for name in ("one.wav", "two.mp4"):
        (tmp_path / name).touch()
    return [f"{tmp_path}/one.wav", f"{tmp_path}/two.mp4"]


def test_every_combination_tracks_outermost(tracks: list[str]) -> None:
    spec = CellsSpec(music=tracks, prompts=["a", "b"], seeds=[3, 4], track_offset_seconds=1.5)
    found = cells(spec)
    assert [(c.track, c.prompt, c.seed) for c in found] == [
        (track, prompt, seed) for track in tracks for prompt in ("a", "b") for seed in (3, 4)
    ]
    assert {(c.num_frames, c.height, c.width, c.track_offset_seconds) for c in found} == {
        (7, 32, 48, 1.5)
    }


def test_frames_of_its_own(tracks: list[str]) -> None:
    spec = CellsSpec(music=tracks[0], prompts=["a"], num_frames=13, track_offset_seconds=None)
    assert [(c.num_frames, c.track_offset_seconds, c.seed) for c in cells(spec)] == [(13, None, 0)]


def test_prompts_from_a_file(tracks: list[str], tmp_path: Path) -> None:
    (tmp_path / "prompts.yaml").write_text("prompts:\n- 踊る\n- a dance\n")
    spec = CellsSpec(music=tracks, prompts=f"{tmp_path}/prompts.yaml")
    assert [c.prompt for c in cells(spec)] == ["踊る", "a dance"] * 2


@pytest.mark.parametrize("content", ["a: 1", "- a", "", "prompts: a dance", "prompts: [1, 2]"])
def test_a_file_without_prompts(tracks: list[str], tmp_path: Path, content: str) -> None:
    (tmp_path / "prompts.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"prompts\.yaml must hold a list of texts"):
        cells(CellsSpec(music=tracks, prompts=f"{tmp_path}/prompts.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "prompts is empty; give at least one"),
        ({"prompts": "a dance video"}, "names a dance video, which does not exist; give a yaml"),
        ({"seeds": []}, "seeds is empty"),
        ({"music": ["/no/such.wav"]}, "names /no/such.wav, which does not exist"),
        ({"music": "/no/such.wav"}, "names /no/such.wav, which does not exist"),
        ({"music": "held_out"}, "needs data.generation.music_dir"),
        ({"music": "held_out", "music_dir": "/no/such"}, "names /no/such, which is not a folder"),
        ({"num_frames": 8}, "num_frames is 8"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"track_offset_seconds": -1.0}, "track_offset_seconds is -1.0"),
    ],
)
def test_bad_requests(tracks: list[str], change: dict, message: str) -> None:
    options = {"music": tracks, "prompts": ["a"]} | change
    with pytest.raises(ValueError, match=message):
        cells(CellsSpec(**options))


def test_held_out_tracks_by_code_or_by_the_video_that_plays_them(tmp_path: Path) -> None:
    assert set(tables().held_out_music) == set(HELD_OUT)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for code in HELD_OUT[:4]:
        (tmp_path / "deep" / f"{code}.wav").touch()
    for code in HELD_OUT[3:]:
        genre = code[1:3]
        name = f"g{genre}_sBM_c01_d04_{code}_ch02.mp4"
        (tmp_path / "deep" / "er" / name).touch()
    # Tracks that are trained on, and files that are neither music nor a dance.
    for name in ("mBR1.wav", "gBR_sBM_c01_d04_mBR1_ch02.mp4", "notes.txt", "mWA0.txt", "clip.mp4"):
        (tmp_path / name).touch()
    found = held_out_tracks(tmp_path)
    assert [path.name for path in found] == [
        *(f"{code}.wav" for code in HELD_OUT[:4]),
        *(f"g{code[1:3]}_sBM_c01_d04_{code}_ch02.mp4" for code in HELD_OUT[4:]),
    ]
    spec = CellsSpec(music_dir=str(tmp_path), prompts=["a"], seeds=[0, 1])
    assert [c.track for c in cells(spec)] == [str(p) for p in found for _ in range(2)]
    found[-1].unlink()
    found[0].unlink()
    with pytest.raises(ValueError, match="no file for the held-out tracks mBR0, mWA0; name"):
        held_out_tracks(tmp_path)


def test_file_names_are_readable_short_and_unique() -> None:
    plain = Cell("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32)
    assert plain.file_stem().startswith("mBR0_a-dance-video_seed3_")
    assert plain.file_stem() == Cell("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32).file_stem()
    others = [
        Cell("b/mBR0.wav", "a dance, video!", 3, 7, 32, 32),
        Cell("a/mBR0.wav", "a dance video!", 3, 7, 32, 32),
        Cell("a/mBR0.wav", "a dance, video!", 4, 7, 32, 32),
        Cell("a/mBR0.wav", "a dance, video!", 3, 13, 32, 32),
        Cell("a/mBR0.wav", "a dance, video!", 3, 7, 48, 32),
        Cell("a/mBR0.wav", "a dance, video!", 3, 7, 32, 48),
        Cell("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32, 1.0),
        Cell("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32, None),
        Cell("a/mBR0.wav", "", 3, 7, 32, 32),
        Cell("../../etc/passwd", "../x/..", 3, 7, 32, 32),
    ]
    stems = {cell.file_stem() for cell in [plain, *others]}
    assert len(stems) == len(others) + 1
    assert not any(set(stem) & set("/. ") for stem in stems)


@pytest.mark.parametrize("letter", ["x", "é", "踊", "💃"])
def test_the_longest_name_fits_a_file_system(letter: str, tmp_path: Path) -> None:
    cell = Cell(f"{letter * 90}.wav", letter * 500, 2**31, 7, 32, 32)
    path = tmp_path / f"{cell.file_stem()}.json"
    path.touch()
    assert len(path.name.encode()) <= 255
