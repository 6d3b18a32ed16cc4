import base64
import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import pytest

from evaluate import main
from musicinfuser.media.video_writing import write_video
from tests.dancing_square import click_track, swinging_square

SONGS = ("a", "b & <c>")
SYSTEMS = ("truth", "model <1>")
VOID = {"meta", "link", "input", "img", "line", "circle", "wbr"}


class Page(HTMLParser):
    """All elements of a page; fails where one is closed that is not open."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two systems over two songs; one clip of the second system is no video, one is unlisted."""
    folder = tmp_path_factory.mktemp("page")
    for system, later_seconds in zip(SYSTEMS, (0.0, 0.07), strict=True):
        own = folder / system.split()[0]
        lines = []
        for index, song in enumerate(SONGS):
            phase = 0.1 * index + later_seconds
            frames = swinging_square(
                num_frames=31, fps=30.0, period_seconds=0.5, phase_seconds=phase
            )
            sound = click_track([0.2, 0.7], duration_seconds=31 / 30, rate_hz=16000)
            file = own / f"{index}.mp4"
            write_video(file, frames, fps=30.0, audio=sound, audio_rate_hz=16000)
            track = f"{song}.wav"
            lines.append(
                {"file": file.name, "system": system, "track": track, "prompt": "<i>dance</i>"}
            )
            (folder / f"{song}.json").write_text(json.dumps({"beats_seconds": [0.2, 0.7]}))
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (own / "manifest.jsonl").write_text(text)
    (folder / "model" / "1.mp4").write_bytes(b"no video")
    shutil.copy(folder / "truth" / "0.mp4", folder / "model" / "extra.mp4")
    return folder


def arguments(folders, output, *options):
    return [
        "report", str(folders / "truth"), str(folders / "model"), "--music_beats=truth",
        f"--beats_folder={folders}", f"--output={output}", "--seed=7", *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def report(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    main(arguments(folders, output, "--title=Dances & <more>"))
    return output


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "index.html").read_text(encoding="utf-8"))


def test_the_page_needs_no_other_file(page, report):
    text = (report / "index.html").read_text(encoding="utf-8")
    links = text.replace("http://www.w3.org/2000/svg", "")  # the name of a format
    assert not re.search(r"https?://|url\(|@import|<script [^>]*src", links)
    assert not (report / "videos").exists()
    for tag, attrs in page.elements:
        for name in ("src", "href", "poster"):
            link = attrs.get(name)
            assert link is None or link.startswith(("data:", "#")), (tag, link)
    targets = {attrs.get("id") for _, attrs in page.elements}
    assert {a["href"][1:] for a in page.all("a")} <= targets


def test_every_clip_that_can_be_shown_has_a_player_with_its_file(page, folders):
    sources = [video["src"] for video in page.all("video")]
    embedded = [base64.b64decode(source.partition(",")[2]) for source in sources]
    assert embedded == [
        (folders / name).read_bytes() for name in ("truth/0.mp4", "model/0.mp4", "truth/1.mp4")
    ]
    assert all("controls" in video and "playsinline" in video for video in page.all("video"))
    assert page.text.count("cannot be shown; see Failed") == 1
    strips = [img for img in page.all("img") if img["class"] == "strip"]
    assert len(strips) == len(SONGS)
    assert "truth: 2 beats" in strips[0]["alt"]


def test_names_and_prompts_are_text_not_markup(page):
    assert page.all("i") == [] and page.all("c") == []
    assert "2. b & <c>" in page.text
    assert "<i>dance</i>" in page.text
    assert "Dances & <more>" in page.text


def test_the_page_begins_with_what_can_be_said(page, report):
    systems = json.loads((report / "metrics.json").read_text())["systems"]
    score, chance = (systems["truth"][f"beat_alignment/{name}"] for name in ("score", "chance"))
    first = page.text.rindex("What can be said")
    text = page.text[first : page.text.rindex("Does it follow the music?")]
    assert (
        f"Beat alignment is {score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" in text
    )
    assert f"chance ({chance['mean']:.3f})" in text and "clips are few" in text
    assert text.index("truth") < text.index("model")


def test_counts_come_below_scores(page):
    text = page.text[page.text.rindex("Scores mean [95% interval]") :]
    places = [text.index(name) for name in ("beat_alignment/z", "Counts")]
    assert places == sorted(places)
    assert text.index("beat_alignment/num_music_beats") > places[-1]


def test_whether_the_music_is_followed_comes_before_scores(page):
    text = page.text[page.text.rindex("Does it follow the music?") : page.text.rindex("Scores")]
    asked = ["lag: slope", "silence: motion", "tempo 0.75", "tempo 1.25", "another track: beat"]
    places = [text.index(control) for control in asked]
    assert places == sorted(places)
    for reason in ("shifted audio", "silent audio", "other tempo", "mismatched audio"):
        assert f"- (no {reason})" in text


def test_scores_differences_and_plots_are_there(page, report):
    document = json.loads((report / "metrics.json").read_text())
    summary = document["systems"]["truth"]["beat_alignment/score"]
    low, high = summary["low"], summary["high"]
    assert f"{summary['mean']:.3f} [{low:.3f}, {high:.3f}]" in page.text
    assert "truth minus model <1>" in page.text
    # A line above each of the three metrics in the first table, and further ones in the second.
    assert [row.get("class") for row in page.all("tr")].count("rule") > 3
    labels = [svg["aria-label"] for svg in page.all("svg")]
    assert any(label.startswith("score. truth: ") for label in labels)
    assert any("clips above chance" in label for label in labels)


def test_failed_and_skipped_clips_are_named_with_the_reason(page, folders):
    document = page.text[page.text.rindex("Failed and skipped") : page.text.rindex("How this was")]
    assert "1.mp4" in document and "cannot be read as video" in document
    assert str(folders / "model" / "extra.mp4") in document
    assert "in no line of its manifest" in document
    assert "Clips that failed: 1." in page.text


def test_the_page_says_how_it_was_made(page, folders, report):
    command = shlex.join(
        ["python", "evaluate.py", *arguments(folders, report, "--title=Dances & <more>")]
    )
    assert " ".join(command.split()) in page.text
    made = page.text[page.text.rindex("How this was made") :]
    assert "Seed 7" in made
    assert "torch" in made and '"max_height": 480' in made and '"num_shifts": 1000' in made


def test_large_videos_lie_beside_the_page_and_are_named(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("dance_eval.commands.report.draw_sheet", lambda *args, **options: None)
    monkeypatch.setattr(
        "dance_eval.commands.report.write_side_by_side", lambda *args, **options: None
    )
    main(arguments(folders, tmp_path, "--embed_mb=0", "--max_clips=1"))
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    sources = [video["src"] for video in page.all("video")]
    assert sources == ["videos/01_0.mp4", "videos/01_1.mp4"]
    assert (tmp_path / sources[0]).read_bytes() == (folders / "truth" / "0.mp4").read_bytes()
    assert "2 videos lie beside this page" in page.text
    assert "01_1.mp4: model <1>, 0.mp4" in page.text
    assert "The first 1 of 2 groups." in page.text


def test_one_system_has_no_differences_and_a_judged_one_stands_beside_the_paper(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setattr("dance_eval.commands.report.draw_sheet", lambda *args, **options: None)
    metrics = tmp_path / "metrics.yaml"
    metrics.write_text("- class_path: tests.scored_numbers.FixedJudge\n")
    called = arguments(folders, tmp_path, f"--metrics={metrics}")
    main([argument for argument in called if argument != str(folders / "model")])
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "Differences between systems" not in page.text
    assert "measured by judge" in page.text and "published" in page.text
    assert "together judge: <IGNORES> on 2 clips. Scores" in page.text
    assert "judge Gives every clip a 6 for everything. beat_alignment: And the others." in page.text
    for suffix in (".md", ".tex", ".csv"):
        assert "measured by judge" in (tmp_path / f"paper_tables{suffix}").read_text()
