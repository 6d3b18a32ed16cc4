"""The page of `evaluate.py report`, driven in a real browser."""

import json
import shutil

import pytest

from evaluate import main
from musicinfuser.media.video_writing import write_video
from tests.dancing_square import click_track, swinging_square

NUM_FRAMES, FPS = 31, 30.0
TIMES = "[...document.querySelectorAll('#group-1 video')].map(video => video.currentTime)"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Two systems over two songs."""
    folder = tmp_path_factory.mktemp("browser")
    frames = swinging_square(num_frames=NUM_FRAMES, fps=FPS, period_seconds=0.5, phase_seconds=0.0)
    sound = click_track([0.2, 0.7], duration_seconds=NUM_FRAMES / FPS, rate_hz=16000)
    for song in "ab":
        write_video(
            folder / "base" / f"{song}.mp4", frames, fps=FPS, audio=sound, audio_rate_hz=16000
        )
        beats = {"beats_seconds": [0.2, 0.7]}
        (folder / f"{song}.json").write_text(json.dumps(beats))
    shutil.copytree(folder / "base", folder / "ours")
    main(
        ["report", str(folder / "base"), str(folder / "ours"), "--music_beats=truth",
         f"--beats_folder={folder}", f"--output={folder / 'report'}"]
    )  # fmt: skip
    return folder / "report" / "index.html"


def test_all_clips_of_a_group_play_together_by_keyboard(open_page, page_file):
    page = open_page(page_file)
    lengths = page.evaluate(
        "Promise.all([...document.querySelectorAll('video')].map(video => video.duration || "
        "new Promise(done => video.onloadedmetadata = () => done(video.duration))))"
    )
    assert lengths == pytest.approx([NUM_FRAMES / FPS] * 4, abs=0.1)
    button = page.locator("#group-1 .play")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"{TIMES}.every(time => time > 0.2)")
    first, second = page.evaluate(TIMES)
    assert abs(first - second) < 0.2
    videos = "[...document.querySelectorAll('video')]"
    assert page.evaluate(f"{videos}.map(video => video.muted)") == [False, True, False, False]
    # It starts again at the end, and stops when another group is played.
    page.evaluate(
        "window.ends = 0; document.querySelector('#group-1 video')"
        ".addEventListener('ended', () => window.ends += 1)"
    )
    page.wait_for_function(f"window.ends > 0 && {TIMES}.every(time => time > 0 && time < 0.8)")
    page.locator("#group-2 .play").click()
    page.wait_for_function(f"{videos}.map(video => video.paused).join() == 'true,true,false,false'")
    assert button.inner_text() == "Play all"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(open_page, page_file, scheme):
    page = open_page(
        page_file, viewport={"width": 375, "height": 800}, is_mobile=True, color_scheme=scheme
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    style = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    brightness = [sum(int(part) for part in colour[4:-1].split(",")) for colour in style]
    assert (brightness[0] > 600) == (brightness[1] < 150) == (scheme == "dark")
    height = page.locator("#group-1 .play").bounding_box()["height"]
    assert height >= 44


def test_without_javascript_every_player_is_there(open_page, page_file):
    page = open_page(page_file, java_script_enabled=False)
    assert page.locator("video[controls]").count() == 4
    assert not page.locator(".controls").first.is_visible()
    assert page.locator("#scores table").first.is_visible()


def test_six_differences_fit_a_laptop_and_names_break_between_words(open_page, tmp_path):
    frames = swinging_square(num_frames=16, fps=FPS, period_seconds=0.4, phase_seconds=0.0)
    sound = click_track([0.2, 0.4], duration_seconds=16 / FPS, rate_hz=16000)
    systems = ("ground_truth", "base_model", "adapted_to_music", "guided_by_music")
    for number, system in enumerate(systems):
        for song in "ab":
            write_video(
                tmp_path / system / f"a_song_with_a_long_name_{song}.mp4",
                frames.roll(number, dims=0),
                fps=FPS,
                audio=sound,
                audio_rate_hz=16000,
            )
    folders = [str(tmp_path / system) for system in systems]
    main(["report", *folders, f"--output={tmp_path / 'report'}"])
    place = tmp_path / "report" / "index.html"
    page = open_page(place, viewport={"width": 1280, "height": 800})
    table = "document.querySelector('#differences .wide')"
    assert page.evaluate(f"{table}.scrollWidth <= {table}.clientWidth")
    page = open_page(place, viewport={"width": 375, "height": 800}, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    # The first screen is read without scrolling sideways.
    first = "document.querySelector('#conclusions .wide')"
    assert page.evaluate(f"{first}.scrollWidth <= {first}.clientWidth")
    # Every line of a name in the first column ends where a word ends.
    lines = page.evaluate(
        """() => [...document.querySelectorAll('#scores td:first-child')].flatMap(cell => {
          const range = document.createRange(), found = [];
          let line = '', top = null;
          for (const node of cell.childNodes) for (let i = 0; i < (node.length || 0); i++) {
            range.setStart(node, i); range.setEnd(node, i + 1);
            const box = range.getBoundingClientRect();
            if (top !== null && box.top > top + 4) { found.push(line); line = ''; }
            line += node.data[i]; top = box.top;
          }
          return found;
        })"""
    )
    assert lines and all(line[-1] in "_/ " for line in lines)
