import json
import shutil

import pytest

from dance_eval.study.key import StudyError, read_key
from dance_eval.study.media import integrated_lufs
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import probe_video, read_clip
from tests.dance_eval.study.conftest import build, write_system

TELLING = (
    "adapted",
    "clip 0",
    "songs",
    "t0.wav",
    "dancer",
    "SECRET",
    "systems0",
    "repeat",
    "catch",
)


def media(folder, name):
    return folder / "media" / f"{name}.mp4"


def frames_of(path, num_frames=9):
    return read_clip(
        path, start_seconds=0.0, num_frames=num_frames, height=48, width=64, crop=None
    ).float()


def page_json(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    start = text.index('type="application/json">') + len('type="application/json">')
    return json.loads(text[start : text.index("</script>", start)])


def test_nothing_on_the_page_tells_who_made_a_clip(study):
    folder, key = study
    assert sorted(p.name for p in folder.iterdir()) == ["index.html", "media"]
    content = json.dumps(page_json(folder)) + " ".join(p.name for p in folder.glob("media/*"))
    for word in (*TELLING, key.secret):
        assert word not in content, word
        for file in folder.glob("media/*"):
            assert word.encode() not in file.read_bytes(), (word, file)
    page = page_json(folder)
    assert page["items"] == sorted(key.items)
    assert set(page) == {
        "study", "seed", "forced", "questions", "items", "clips", "raters", "minutes"
    }  # fmt: skip
    assert {p.stat().st_mtime for p in folder.glob("media/*")} == {0.0}
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "://" not in text


def test_the_questions_are_those_of_the_paper(study):
    assert [text for _, text in page_json(study[0])["questions"]] == [
        "Which video has higher visual quality?",
        "Which video’s dance aligns better with the music?",
        "Which video’s motion is more realistic?",
        "Which video’s dance is more complex?",
    ]


def test_both_clips_of_a_pair_sound_and_measure_the_same(study):
    folder, key = study
    infos = [probe_video(path) for path in folder.glob("media/*")]
    assert len(infos) == len(key.clips)
    assert {(i.width, i.height, i.average_fps) for i in infos} == {(64, 48, 30.0)}
    assert [i.duration_seconds for i in infos] == pytest.approx([0.3] * len(infos))
    for item in key.items.values():
        sounds = [
            read_audio(media(folder, name), rate_hz=48000) for name in (item.first, item.second)
        ]
        assert sounds[0].equal(sounds[1])
        assert integrated_lufs(sounds[0], rate_hz=48000) == pytest.approx(-23.0, abs=0.5)


def test_pairs_show_the_two_systems_on_the_same_music(study, systems):
    folder, key = study
    assert key.systems == ["base", "adapted"]
    pairs = [item for item in key.items.values() if item.kind == "pair"]
    assert len(pairs) == 3
    for item in pairs:
        first, second = key.clips[item.first], key.clips[item.second]
        assert (first.system, second.system) == ("base", "adapted")
        assert (first.track, first.prompt, first.seed) == (second.track, second.prompt, second.seed)
        shown, source = (
            frames_of(path) for path in (media(folder, item.first), systems[0] / first.file)
        )
        assert float((shown - source).abs().mean()) < 3


def test_catches_are_spoilt_copies(study):
    folder, key = study
    catches = [item for item in key.items.values() if item.kind == "catch"]
    assert sorted(key.clips[item.second].spoiling for item in catches) == [
        "coarse", "frozen", "scrambled"
    ]  # fmt: skip
    for item in catches:
        assert not key.clips[item.first].spoiling
        intact, spoilt = (frames_of(media(folder, name)) for name in (item.first, item.second))
        assert float((intact - spoilt).abs().mean()) > 0.3
        if key.clips[item.second].spoiling == "frozen":
            assert float((spoilt - spoilt[:1]).abs().mean()) < 1


def test_a_repeated_command_goes_on_and_another_study_is_refused(systems, tmp_path):
    folder = tmp_path / "page"
    first = build(*systems[:2], output=folder)
    contents = {p.name: p.read_bytes() for p in folder.rglob("*.*") if p.is_file()}
    # As a killed command leaves it: no page, and not all clips.
    (folder / "index.html").unlink()
    gone = sorted(folder.glob("media/*"))[2]
    gone.unlink()
    assert build(*systems[:2], output=folder) == first
    assert {p.name: p.read_bytes() for p in folder.rglob("*.*") if p.is_file()} == contents
    with pytest.raises(StudyError, match="key of another study"):
        build(*systems[:2], output=folder, raters=5)
    folder.with_name("page.key.json").unlink()
    with pytest.raises(StudyError, match="key .* is missing"):
        build(*systems[:2], output=folder)


def test_the_key_stays_out_of_the_page(systems, tmp_path):
    with pytest.raises(StudyError, match="given to raters"):
        build(*systems[:2], output=tmp_path / "page", key=tmp_path / "page" / "key.json")
    assert not (tmp_path / "page").exists()


def test_missing_clips_sizes_and_lengths_are_named(systems, tmp_path, capsys):
    odd = write_system(tmp_path / "od'd <b>", phase=0.0, num_clips=2, num_frames=12, size=(96, 128))
    shutil.copytree(systems[2], tmp_path / "truth")
    (tmp_path / "truth" / 'clip 1, "ü".mp4').write_bytes(b"not a video at all")
    folder = tmp_path / "page"
    key = build(systems[0], odd, tmp_path / "truth", output=folder, repeats=0, catches=1, raters=2)
    kinds = [key.systems_of(name) for name, item in key.items.items() if item.kind == "pair"]
    assert sorted(kinds) == sorted(
        [("base", "od'd <b>"), ("base", "od'd <b>"), ("base", "truth"), ("od'd <b>", "truth")]
    )
    assert {(i.width, i.height) for i in map(probe_video, folder.glob("media/*"))} == {(64, 48)}
    notes = "\n".join(key.notes)
    assert 'clip 1, "ü".mp4: cannot be read as video' in notes
    assert notes.count("last 9 and 12 frames at 30 per second; both are cut to 9.") == 2
    assert notes.count("96x128 px shown as 48x64.") == 2
    assert notes.count("od'd <b> has no clip left") == 1  # for the third clip of base
    assert notes.count("truth has no clip left") == 3
    printed = capsys.readouterr().out
    assert all(note in printed for note in key.notes)
    assert "4 pairs of 3 systems and 1 catches for 2 raters" in printed


def test_what_cannot_be_a_study_is_one_sentence(systems, tmp_path):
    with pytest.raises(StudyError, match="two or more"):
        build(systems[0], output=tmp_path / "page")
    other = write_system(tmp_path / "other", phase=0.0, num_clips=1, track="else.wav")
    with pytest.raises(StudyError, match="share no track"):
        build(systems[0], other, output=tmp_path / "page")
    with pytest.raises(StudyError, match="cannot be read as the key"):
        read_key(systems[0] / "manifest.jsonl")
