"""The page of a study, used by a rater in a real browser."""

import json
import os
from pathlib import Path

import pytest

from evaluate import main
from musicinfuser.media.video_writing import write_video
from tests.dance_eval.study.conftest import build
from tests.dancing_square import click_track, swinging_square

SHOTS = os.environ.get("SCREENSHOTS")


def shot(page, name):
    if SHOTS:
        page.screenshot(path=Path(SHOTS, f"{name}.png"))


def watch(page, *keys):
    """Play clips and wait until they have been watched."""
    for key in keys:
        side = {"1": 0, "2": 1}[key]
        page.keyboard.press(key)
        page.wait_for_selector(f'figure.watched[data-side="{side}"]')


def start(page):
    page.click("#entry button")
    page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.readyState > 1)")


def answer(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def chosen(page):
    return page.eval_on_selector_all(
        'button[aria-pressed="true"]', "buttons => buttons.map(b => b.dataset.choice)"
    )


def test_chromium_plays_what_our_writer_writes(open_page, tmp_path):
    frames = swinging_square(num_frames=13, fps=30.0, period_seconds=0.2, phase_seconds=0.0)
    sound = click_track([0.1, 0.3], duration_seconds=13 / 30, rate_hz=16000)
    write_video(tmp_path / "clip.mp4", frames, fps=30.0, audio=sound, audio_rate_hz=16000)
    (tmp_path / "page.html").write_text(
        '<button onclick="v.play()">go</button><video id=v src=clip.mp4>'
    )
    page = open_page(tmp_path / "page.html")
    page.click("button")
    page.wait_for_function("v.ended")
    played = page.evaluate("[v.currentTime, v.videoWidth, v.webkitAudioDecodedByteCount]")
    assert played[0] == pytest.approx(13 / 30, abs=0.05)
    assert played[1] == 64
    assert played[2] > 0


def test_a_rater_votes_by_keyboard_and_the_file_is_analysed(open_page, study, tmp_path, capsys):
    folder, key = study
    page = open_page(folder / "index.html", "?rater=2", viewport={"width": 1280, "height": 760})
    shot(page, "start")
    start(page)
    num_trials = len(key.plan["2"])
    for number in range(num_trials):
        assert page.inner_text("#count") == f"Pair {number + 1} of {num_trials}"
        # Neither keys nor buttons answer anything before both clips were watched.
        answer(page, "ArrowLeft", "Enter")
        assert chosen(page) == []
        watch(page, "1")
        answer(page, "ArrowLeft", "Enter")
        assert chosen(page) == [] and page.is_disabled("#next")
        watch(page, "2")
        answer(page, "ArrowLeft", "ArrowDown", "ArrowRight")
        answer(page, "Enter")
        assert chosen(page) == ["left", "tie", "right"]
        if number == 0:
            shot(page, "voting")
        answer(page, "ArrowUp", "ArrowDown", "ArrowLeft")
        assert chosen(page) == ["left", "tie", "tie", "left"]
        answer(page, "Enter")
    shot(page, "end")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == f"votes_{key.study}_rater2.csv"
    file = tmp_path / "votes" / download.value.suggested_filename
    download.value.save_as(file)
    assert page.input_value("#text") == file.read_text()

    out = tmp_path / "out"
    name = f"{folder.name}.key.json"
    main(["study", "analyse", str(file), f"--key={folder.with_name(name)}", f"--output={out}"])
    document = json.loads((out / "analysis.json").read_text())
    assert [p["kind"] for p in document["problems"]] == ["no answers"]
    assert document["raters"][0]["num_votes"] == 4 * num_trials
    rates = {row["question"]: row for row in document["win_rates"]}
    # Always the left clip, and every pair has another side on the left than half of the others.
    assert rates["music"]["ties"] == rates["realism"]["ties"] == 3
    assert {rates["quality"]["wins"], rates["quality"]["losses"]} == {1, 2}
    shot_report(open_page, out)


def shot_report(open_page, out):
    page = open_page(out / "index.html", viewport={"width": 1280, "height": 900})
    assert page.inner_text("h1").startswith("Study ")
    assert page.locator("svg circle").count() >= 4
    shot(page, "analysis")


def test_reload_keeps_progress_and_answers_given_so_far(open_page, study):
    folder, _ = study
    page = open_page(folder / "index.html", "?rater=1")
    start(page)
    watch(page, "1", "2")
    answer(page, "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft", "Enter")
    watch(page, "1", "2")
    answer(page, "ArrowRight", "ArrowDown")
    page.reload()
    assert "1 of" in page.inner_text("#entry-note")
    start(page)
    assert page.inner_text("#count").startswith("Pair 2 of")
    assert chosen(page) == ["right", "tie"]
    answer(page, "ArrowLeft", "ArrowLeft")
    assert page.is_enabled("#next")
    with page.expect_download() as download:
        page.click("#so-far")
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 1 + 4
    # Another rater on the same computer starts at the beginning.
    page.goto(page.url.replace("rater=1", "rater=3"))
    start(page)
    assert page.inner_text("#count").startswith("Pair 1 of")


def test_it_works_on_a_phone_by_touch(open_page, study):
    folder, _ = study
    page = open_page(
        folder / "index.html",
        viewport={"width": 390, "height": 844},
        is_mobile=True,
        has_touch=True,
        device_scale_factor=2,
        color_scheme="dark",
    )
    page.fill("#rater", "99")
    page.tap("#entry button")
    assert "no number 99" in page.inner_text("#entry-note")
    page.fill("#rater", " 4 ")
    page.tap("#entry button")
    for side in (0, 1):
        page.tap(f'figure[data-side="{side}"] .play')
        page.wait_for_selector(f'figure.watched[data-side="{side}"]')
    for group in page.locator(".question").all():
        group.locator("button").nth(2).tap()
    shot(page, "phone")
    assert chosen(page) == ["right"] * 4
    width, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner == 390
    heights = page.eval_on_selector_all(
        "#trial button:not([hidden]):not(.link)",
        "b => b.map(x => x.getBoundingClientRect().height)",
    )
    assert min(height for height in heights if height) >= 44
    page.tap("#next")
    assert page.inner_text("#count").startswith("Pair 2 of")


def test_without_ties_only_sides_can_be_chosen(open_page, systems, tmp_path):
    build(*systems[:2], output=tmp_path / "forced", ties="false", raters=1, catches=0, repeats=0)
    page = open_page(tmp_path / "forced" / "index.html", "?rater=1")
    start(page)
    watch(page, "1", "2")
    answer(page, "ArrowDown")
    assert chosen(page) == []
    answer(page, "ArrowRight")
    assert chosen(page) == ["right"]


def test_a_clip_that_does_not_play_is_left_out_by_name(open_page, systems, tmp_path):
    folder = tmp_path / "page"
    key = build(*systems[:2], output=folder, raters=1, catches=0, repeats=0)
    first = key.plan["1"][0]
    (folder / "media" / f"{first.left}.mp4").write_bytes(b"no video")
    page = open_page(folder / "index.html", "?rater=1")
    page.click("#entry button")
    page.wait_for_selector("#skip:visible")
    assert "Video A cannot be played" in page.inner_text("#hint")
    page.click("#skip")
    assert page.inner_text("#count").startswith("Pair 2 of")
    with page.expect_download() as download:
        page.click("#so-far")
    rows = Path(download.value.path()).read_text().splitlines()[1:]
    assert len(rows) == 4 and all(",unplayable," in row for row in rows)
