from statistics import median

import pytest

from dance_eval.metrics.tempo_response import (
    TempoClip,
    TempoResponse,
    tempo_of,
    tempo_ratios,
    tempo_response,
)
from tests.dance_eval.metrics.sets import combined, entry, flickering


def test_ratios_against_a_plain_loop():
    clips = [
        TempoClip(1.5 + 0.3 * cell + 0.1 * run + 0.2 * tempo, tempo, cell, run)
        for cell in range(4)
        for run in range(3)
        for tempo in (0.75, 1.0, 1.25)
    ]
    expected: dict = {}
    for clip in clips:
        for own in clips:
            if clip.tempo == 0.75 and (own.group, own.run, own.tempo) == (clip.group, clip.run, 1):
                expected.setdefault(clip.group, []).append(clip.hertz / own.hertz / 0.75)
    assert tempo_ratios(clips, tempo=0.75) == (expected, 0)
    middle, within = tempo_response(list(expected.values()), seed=0, name="x")
    flat = [ratio for cell in expected.values() for ratio in cell]
    assert middle.mean == median(flat) and middle.num_values == 4
    assert middle.low <= middle.mean <= middle.high
    assert within.mean == pytest.approx(sum(abs(r - 1) <= 0.1 for r in flat) / 12)


def test_partners_are_of_the_same_run_or_the_only_one():
    own, other = TempoClip(2.0, 1, "a", "x"), TempoClip(4.0, 1, "a", "y")
    fast = TempoClip(2.5, 1.25, "a", "x")
    assert tempo_ratios([own, other, fast], tempo=1.25)[0] == {"a": [1.0]}
    elsewhere = TempoClip(2.5, 1.25, "a", "z")
    assert tempo_ratios([own, elsewhere], tempo=1.25)[0] == {"a": [1.0]}
    assert tempo_ratios([own, other, elsewhere], tempo=1.25) == ({}, 1)


def test_clips_without_a_ratio_are_counted():
    still, moving = TempoClip(0.0, 1, "a"), TempoClip(2.0, 1.25, "a")
    alone = TempoClip(2.0, 1.25, "b")
    assert tempo_ratios([still, moving, alone], tempo=1.25) == ({}, 2)
    middle, within = tempo_response([], seed=0, name="x")
    assert middle.mean is None and within.mean is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("music/song.wav", ("song", 1.0)),
        ("music/song_tempo_0.75.wav", ("song", 0.75)),
        ("set/tempo_1.25/music/000_song.wav", ("000_song", 1.25)),
        ("set/tempo_0.75/videos/../../music/song.wav", ("song", 1.0)),
        ("a/tempo_2/b/tempo_0.5/song.mp3", ("song", 0.5)),
        ("music/my tempo song.wav", ("my tempo song", 1.0)),
        ("tempo_3/house_tempo_128.wav", ("house_tempo_128", 1.0)),
    ],
)
def test_the_tempo_is_read_from_the_tracks_path(path, expected):
    assert tempo_of(path) == expected


def test_clips_of_a_system_are_paired_by_their_cells():
    clips = []
    for number in range(4):
        hertz = 1.5 + 0.3 * number
        track = f"../music/{number}.wav"
        at = {1.0: hertz, 0.75: 0.75 * hertz, 1.25: hertz}
        for tempo, frequency in at.items():
            folder = "set/videos" if tempo == 1 else f"set/tempo_{tempo}/videos"
            system = "s" if tempo == 1 else f"s at tempo {tempo:g}"
            clips.append((flickering(frequency), entry(system, folder, track=track, seed=number)))
    clips.append((flickering(2.0), entry("another", "other/videos")))
    clips.append((flickering(2.0), entry("s", "set/tempo_1.25/videos", track="../music/9.wav")))
    values = combined(TempoResponse(), clips)
    assert values["median_ratio_x0.75"].mean == pytest.approx(1, rel=0.05)
    assert values["within_10_percent_x0.75"].mean == 1
    assert values["median_ratio_x1.25"].mean == pytest.approx(0.8, rel=0.05)
    assert values["within_10_percent_x1.25"].mean == 0
    assert values["within_10_percent_x1.25"].num_values == 4
    assert values["num_without_ratio_x1.25"].mean == 1
    assert values["num_without_ratio_x1.25"].num_values == 5


def test_a_start_in_the_track_moves_with_the_tempo():
    metric = TempoResponse()
    first = entry(track="song.wav", track_offset_seconds=3.0)
    slow = entry(track="song_tempo_0.75.wav", track_offset_seconds=4.0)
    late = entry(track="song_tempo_0.75.wav", track_offset_seconds=3.0)
    cells = [metric.labels_of(e, system="s")[0] for e in (first, slow, late)]
    assert cells[0] == cells[1] != cells[2]


def test_senseless_tempi_are_refused():
    for tempi in ([1.0], [0.0]):
        with pytest.raises(ValueError, match="tempi is"):
            TempoResponse(tempi=tempi)
    with pytest.raises(ValueError, match="band_hz"):
        TempoResponse(lowest_hz=5.0, highest_hz=4.0)
