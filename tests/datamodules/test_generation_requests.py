from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.aist_names import tables
from datamodules.generation_requests import RequestsSpec, held_out_tracks, make_requests
from datamodules.request_lists import read_requests
from datamodules.track_tempi import TempoSpec
from musicinfuser.clip_size import GEOMETRIES
from musicinfuser.generation_requests import GenerationRequest

HELD_OUT = (
    "mBR0", "mHO5", "mJB5", "mJS3", "mKR2", "mLH4", "mLO2", "mMH3", "mPO1", "mWA0",
)  # fmt: skip


def requests(spec: RequestsSpec, **changes) -> list[GenerationRequest]:
    return make_requests(spec, **({"num_frames": 7, "height": 32, "width": 48} | changes))


@pytest.fixture
def tracks(tmp_path: Path) -> list[str]:
    for name in ("one.wav", "two.mp4"):
        (tmp_path / name).write_text(name)
    return [f"{tmp_path}/one.wav", f"{tmp_path}/two.mp4"]


def test_every_combination_tracks_outermost(tracks: list[str]) -> None:
    spec = RequestsSpec(music=tracks, prompts=["a", "b"], seeds=[3, 4], track_offset_seconds=1.5)
    found = requests(spec)
    assert [(c.track, c.prompt, c.seed) for c in found] == [
        (track, prompt, seed) for track in tracks for prompt in ("a", "b") for seed in (3, 4)
    ]
    assert {(c.num_frames, c.height, c.width, c.track_offset_seconds) for c in found} == {
        (7, 32, 48, 1.5)
    }


def test_frames_of_its_own(tracks: list[str]) -> None:
    spec = RequestsSpec(music=tracks[0], prompts=["a"], num_frames=13, track_offset_seconds=None)
    assert [(c.num_frames, c.track_offset_seconds, c.seed) for c in requests(spec)] == [
        (13, None, 0)
    ]


def test_prompts_from_a_file(tracks: list[str], tmp_path: Path) -> None:
    (tmp_path / "prompts.yaml").write_text("prompts:\n- 踊る\n- a dance\n")
    spec = RequestsSpec(music=tracks, prompts=f"{tmp_path}/prompts.yaml")
    assert [c.prompt for c in requests(spec)] == ["踊る", "a dance"] * 2


@pytest.mark.parametrize("content", ["a: 1", "- a", "", "prompts: a dance", "prompts: [1, 2]"])
def test_a_file_without_prompts(tracks: list[str], tmp_path: Path, content: str) -> None:
    (tmp_path / "prompts.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"prompts\.yaml must hold a list of texts"):
        requests(RequestsSpec(music=tracks, prompts=f"{tmp_path}/prompts.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "prompts is empty; give at least one"),
        ({"prompts": "a dance video"}, "names a dance video, which does not exist; give a yaml"),
        ({"seeds": []}, "seeds is empty"),
        ({"heard": []}, "heard is empty"),
        ({"seeds": [0, 1, 0]}, "asks 2 times for the clip of .*one.wav with seed 0 and 'a'; name"),
        ({"music": ["/"]}, "names /, which is a folder, not a file"),
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
        requests(RequestsSpec(**options))


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
    spec = RequestsSpec(music_dir=str(tmp_path), prompts=["a"], seeds=[0, 1])
    assert [c.track for c in requests(spec)] == [str(p) for p in found for _ in range(2)]
    found[-1].unlink()
    found[0].unlink()
    with pytest.raises(ValueError, match="no file for the held-out tracks mBR0, mWA0; name"):
        held_out_tracks(tmp_path)


def test_file_names_are_readable_short_and_unique() -> None:
    plain = GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32)
    assert plain.file_stem().startswith("mBR0_a-dance-video_seed3_")
    assert (
        plain.file_stem()
        == GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32).file_stem()
    )
    others = [
        GenerationRequest("b/mBR0.wav", "a dance, video!", 3, 7, 32, 32),
        GenerationRequest("a/mBR0.wav", "a dance video!", 3, 7, 32, 32),
        GenerationRequest("a/mBR0.wav", "a dance, video!", 4, 7, 32, 32),
        GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 13, 32, 32),
        GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 48, 32),
        GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 32, 48),
        GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32, 1.0),
        GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32, None),
        GenerationRequest("a/mBR0.wav", "", 3, 7, 32, 32),
        GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32, heard="nothing"),
        GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32, heard="b/mHO5.wav"),
        GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32, heard="c/mHO5.wav"),
        GenerationRequest(
            "a/mBR0.wav",
            "a dance, video!",
            3,
            7,
            32,
            32,
            heard="b/mHO5.wav",
            heard_offset_seconds=0.0,
        ),
        GenerationRequest("../../etc/passwd", "../x/..", 3, 7, 32, 32),
    ]
    stems = {request.file_stem() for request in [plain, *others]}
    assert len(stems) == len(others) + 1
    assert not any(set(stem) & set("/. ") for stem in stems)


def test_names_of_clips_made_before_there_was_another_music_to_hear() -> None:
    plain = GenerationRequest("a/mBR0.wav", "a dance, video!", 3, 7, 32, 32)
    assert plain.file_stem() == "mBR0_a-dance-video_seed3_f94475"
    other = GenerationRequest(
        "a/mBR0.wav", "a dance, video!", 3, 7, 32, 32, heard="music/mHO 5.wav"
    )
    assert other.file_stem().startswith("mBR0_a-dance-video_seed3_hears-mHO-5_")


@pytest.mark.parametrize("letter", ["x", "é", "踊", "💃"])
def test_the_longest_name_fits_a_file_system(letter: str, tmp_path: Path) -> None:
    name = f"{letter * 90}.wav"
    request = GenerationRequest(name, letter * 500, 2**31, 7, 32, 32, heard=name)
    path = tmp_path / f"{request.file_stem()}.json"
    path.touch()
    assert len(path.name.encode()) <= 255


COLUMNS = "track,prompt,seed,track_offset_seconds,num_frames,heard,heard_offset_seconds"


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list beside its music, and a working directory with music of its own."""
    for name in (
        "lists/own.wav",
        "lists/both.wav",
        "work/both.wav",
        "work/far.mp4",
        "lists/踊,.wav",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "lists" / "requests.csv"


def test_a_list_of_requests(listed: Path) -> None:
    absolute = listed.parent / "own.wav"
    listed.write_text(
        f"{COLUMNS}\n"
        "own.wav,a dance,3,,,,\n"
        'both.wav,"a dance, with ""commas""",4,1.5,13,nothing,\n'
        "far.mp4,踊る,-5,0,19,own.wav,\n"
        "\n"
        f"{absolute},,6,, 25,far.mp4,0.25\r\n"
        '"踊,.wav","two\nlines",7,,,both.wav,2\n',
        encoding="utf-8-sig",
    )
    folder = str(listed.parent)
    expected = [
        GenerationRequest(f"{folder}/own.wav", "a dance", 3, 7, 32, 48, 2.0),
        GenerationRequest(
            f"{folder}/both.wav", 'a dance, with "commas"', 4, 13, 32, 48, 1.5, "nothing"
        ),
        GenerationRequest("far.mp4", "踊る", -5, 19, 32, 48, 0.0, f"{folder}/own.wav"),
        GenerationRequest(f"{folder}/own.wav", "", 6, 25, 32, 48, 2.0, "far.mp4", 0.25),
        GenerationRequest(
            f"{folder}/踊,.wav", "two\nlines", 7, 7, 32, 48, 2.0, f"{folder}/both.wav", 2.0
        ),
    ]
    assert requests(RequestsSpec(requests=str(listed), track_offset_seconds=2.0)) == expected
    # The three columns that are needed, in any order; the rest is the spec's.
    listed.write_text("seed,track,prompt\n1,own.wav,a\n")
    spec = RequestsSpec(requests=str(listed), num_frames=13, track_offset_seconds=None)
    assert requests(spec) == [GenerationRequest(f"{folder}/own.wav", "a", 1, 13, 32, 48, None)]


def test_a_list_of_first_pictures(listed: Path) -> None:
    """Beside the list, as tracks are; a line without one has that of the whole command, if any."""
    for name in ("a.png", "b.png"):
        (listed.parent / name).touch()
    listed.write_text("track,prompt,seed,image\nown.wav,a,0,a.png\nown.wav,a,0,\nown.wav,a,1,\n")
    options: dict = {"num_frames": 9, "height": 32, "width": 64, "geometry": GEOMETRIES["wan_5b"]}
    folder, spec = listed.parent, RequestsSpec(requests=str(listed), num_frames=9)
    found = make_requests(spec, **options)
    assert [request.image for request in found] == [f"{folder}/a.png", None, None]
    assert [request.control for request in found] == ["first picture", "", ""]
    stems = [request.file_stem() for request in found]
    assert "_from-a_" in stems[0] and len(set(stems)) == 3
    assert "image" not in found[1].stored() and found[0].stored()["image"] == f"{folder}/a.png"
    given = make_requests(replace(spec, image=f"{folder}/b.png"), **options)
    assert [Path(r.image or "").name for r in given] == ["a.png", "b.png", "b.png"]
    both = replace(found[0], heard="nothing")
    assert both.control == "no audio, first picture"
    with pytest.raises(
        ValueError, match="line 2: an image is given, but Mochi cannot begin a clip"
    ):
        requests(RequestsSpec(requests=str(listed)))
    asked = RequestsSpec(music=[f"{folder}/own.wav"], prompts=["a"], image=f"{folder}/b.png")
    message = "generation.image is .*b.png, but Mochi cannot begin .* of the family wan_5b"
    with pytest.raises(ValueError, match=message):
        requests(asked)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no.wav,a,0,,,,", "track names no.wav, which exists neither in"),
        (",a,0,,,,", "track is empty"),
        ("x" * 300 + ",a,0,,,,", "which exists neither in"),
        ("own.wav,a,,,,,", "seed is ''; give a whole number"),
        ("own.wav,a,1.5,,,,", "seed is '1.5'; give a whole number"),
        ("own.wav,a,0,soon,,,", "track_offset_seconds is 'soon'; give a number"),
        ("own.wav,a,0,-1,,,", "track_offset_seconds is -1.0"),
        ("own.wav,a,0,nan,,,", "track_offset_seconds is nan"),
        ("own.wav,a,0,,8,,", "num_frames is 8; Mochi takes"),
        ("own.wav,a,0,,8.5,,", "num_frames is '8.5'; give a whole number"),
        ("own.wav,a,0,,,Nothing,", "heard names Nothing, which exists neither in"),
        ("own.wav,a,0,,,own.wav,-1", "heard_offset_seconds is -1.0"),
        ("own.wav,a,0,,,own.wav,inf", "heard_offset_seconds is inf"),
        ("own.wav,a,0,,,,1", "heard_offset_seconds is 1.0, but `heard` names no file"),
        ("own.wav,a,0,,,nothing,1", "heard_offset_seconds is 1.0, but `heard` names no file"),
        ("own.wav,a,b,0,,,,", "has 8 values for 7 columns; put quotes around a text with commas"),
        ("own.wav,a,0", "has 3 values for 7 columns"),
        ("./own.wav,first,2,,,,", "repeats line 2"),
    ],
)
def test_bad_lines_are_named(listed: Path, line: str, message: str) -> None:
    listed.write_text(f"{COLUMNS}\nown.wav,first,2,,,,\n\n{line}\n")
    with pytest.raises(ValueError) as error:
        requests(RequestsSpec(requests=str(listed)))
    assert str(error.value).startswith(f"{listed}, line 4: ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_several_lists_follow_each_other_and_may_not_repeat_a_line(listed: Path) -> None:
    second = listed.with_name("more.csv")
    listed.write_text("track,prompt,seed\nown.wav,a,0\n")
    second.write_text("track,prompt,seed,heard\nown.wav,a,0,nothing\nown.wav,a,1,\n")
    both = RequestsSpec(requests=[str(listed), str(second)])
    assert [(c.seed, c.heard) for c in requests(both)] == [(0, None), (0, "nothing"), (1, None)]
    second.write_text("track,prompt,seed\nown.wav,b,0\nown.wav,a,0\n")
    with pytest.raises(ValueError, match=f"more.csv, line 3: repeats line 2 of {listed}"):
        requests(both)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"line 1: names the columns \(none\); there must be track, prompt, seed"),
        (b"track,prompt\nown.wav,a\n", r"line 1: names the columns track, prompt; there must"),
        (b"track,prompt,seed,head\nown.wav,a,0,nothing\n", "columns track, prompt, seed, head;"),
        (b"track,prompt,seed,seed\nown.wav,a,0,1\n", "each once"),
        (b"track,prompt,seed\n", "lists no request"),
        (b"track,prompt,seed\nown.wav,\xff,0\n", "line 2: cannot be read as UTF-8 text"),
        (b'track,prompt,seed\nown.wav,"a"b,0\n', "cannot be read as csv in UTF-8"),
        (b'track,prompt,seed\nown.wav,"a,0\n', "cannot be read as csv in UTF-8"),
    ],
)
def test_files_that_are_no_list(listed: Path, content: bytes, message: str) -> None:
    listed.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_requests([listed], GenerationRequest("", "", 0, num_frames=7, height=32, width=48))
    assert str(listed) in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("music", ["a.wav"]), ("music_dir", "music"), ("prompts", ["a"]), ("seeds", [1, 2])],
)
def test_a_list_and_a_product_contradict_each_other(listed: Path, name: str, value: object) -> None:
    listed.write_text("track,prompt,seed\nown.wav,a,0\n")
    with pytest.raises(ValueError, match=rf"but data\.generation\.{name} is given too"):
        requests(RequestsSpec(requests=str(listed), **{name: value}))
    with pytest.raises(ValueError, match=r"requests names /no/such\.csv, which does not exist"):
        requests(RequestsSpec(requests="/no/such.csv"))


def test_what_is_heard(tracks: list[str]) -> None:
    heard = [0.0, 0.3, "silence", "nothing", "another track"]
    options = {"music": tracks, "prompts": ["a"], "track_offset_seconds": 0.4}
    found = requests(RequestsSpec(heard=heard, **options))
    one, two = tracks
    own = [(None, None), (one, 0.1), ("silence", None), ("nothing", None), (two, None)]
    assert [(c.heard, c.heard_offset_seconds) for c in found[:5]] == own
    assert found[9].heard == one
    assert {c.track_offset_seconds for c in found} == {0.4}
    assert [c.control for c in found[:5]] == [
        "", "shifted audio", "silent audio", "no audio", "mismatched audio"
    ]  # fmt: skip
    assert [c.heard_file for c in found[:5]] == [None, one, None, None, two]
    assert len({c.file_stem() for c in found}) == 10
    # Of sound that is not late the start may be drawn.
    drawn = options | {"track_offset_seconds": None}
    assert requests(RequestsSpec(heard=[0.0], **drawn))[0].track_offset_seconds is None


def test_another_track_is_another_piece(tmp_path: Path) -> None:
    """Recordings of one piece of AIST, and equal files, are not each other's other track."""
    names = ["gBR_sBM_c01_d04_mBR0_ch01", "gBR_sBM_c01_d05_mBR0_ch02", "mBR1", "song", "copy"]
    tracks = [str(tmp_path / f"{name}.wav") for name in names]
    for number, track in enumerate(tracks):
        Path(track).write_bytes(bytes([min(number, 3)]))

    def heard(*numbers: int) -> list[int]:
        music = [tracks[number] for number in numbers]
        found = requests(RequestsSpec(heard=["another track"], music=music, prompts=["a"]))
        return [tracks.index(clip.heard) for clip in found]

    assert heard(0, 1, 2, 3, 4) == [2, 2, 3, 0, 0]
    assert heard(0, 1, 3) == [3, 3, 0]
    for same in ((0, 1), (3, 4)):
        with pytest.raises(ValueError, match="name a track with another piece"):
            heard(*same)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heard": [0.5]}, "sound 0.5 s late, which starts so much earlier in the track; give"),
        ({"heard": [0.1], "track_offset_seconds": None}, "a number from 0.1 on"),
        ({"heard": ["silent"]}, "holds 'silent'; give seconds or one of silence, nothing"),
        ({"heard": ["another track"], "music": 0}, "holds only the music of .*another piece"),
        (
            {"heard": [0.1], "tempo": TempoSpec("x")},
            "changes the sounds, but .*heard is given",
        ),
    ],
)
def test_what_cannot_be_heard(tracks: list[str], change: dict, message: str) -> None:
    options = {"music": tracks, "prompts": ["a"], "track_offset_seconds": 0.4} | change
    if options["music"] == 0:
        options["music"] = tracks[:1]
    with pytest.raises(ValueError, match=message):
        requests(RequestsSpec(**options))
