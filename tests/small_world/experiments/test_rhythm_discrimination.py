import numpy as np
import pytest

from dance_eval.metrics.beat_alignment import BeatAlignment
from small_world.experiments.rhythm_discrimination import (
    CONTROLS,
    JOINTS,
    NUM_FRAMES,
    RATE_HZ,
    Measure,
    Music,
    area_under_curve,
    rows_of,
    small_world_dances,
)
from small_world.generator.music import compose


def test_the_area_counts_pairs_that_are_in_order():
    own, control = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 5.0])
    area = area_under_curve(own, control, ["a", "b", "c"], name="by hand")
    assert area.mean == pytest.approx((1 + 1.5 + 2) / 9)
    assert area.low < area.mean < area.high and area.num_values == 3
    apart = area_under_curve(own + 9, control, ["a", "a", "b"], name="by hand")
    assert (apart.mean, apart.low, apart.high, apart.num_values) == (1.0, 1.0, 1.0, 2)


def test_the_sound_has_its_beats_where_it_is_said():
    piece = compose("x", genre="HO", bpm=120.0, seed=0, rate_hz=RATE_HZ)
    music = Music(piece, 0.2)
    beats = music.beats(late_seconds=0.1)
    assert 0.3 in beats.round(6) and beats.min() < -3 and beats.max() > 7
    sound = music.sound(2.0, late_seconds=0.1)
    at = round(8 * 0.5 * RATE_HZ)
    assert sound[round(0.3 * RATE_HZ) :][:100].tolist() == pytest.approx(
        piece.waveform[0, at : at + 100].tolist()
    )


def test_a_dance_that_follows_is_told_from_those_that_do_not():
    dances = small_world_dances(6, seed=1, spread_seconds=0.0)
    assert {dance.to_music.shape for dance in dances} == {(NUM_FRAMES, 64, 64, 3)}
    still = BeatAlignment(motion=JOINTS, num_shifts=2, sigma_seconds=1e-6)
    compared = {
        "nothing": Measure(still, "num_kinematic_beats", only_small_world=True),
        "alignment": Measure(
            BeatAlignment(motion=JOINTS, num_shifts=2), "score", only_small_world=True
        ),
    }
    first, second = rows_of(dances, compared)
    assert (first["metric"], second["metric"]) == ("alignment", "nothing")
    areas = [float(str(first[what]).split()[0]) for what in CONTROLS]
    assert min(areas) > 0.8
    # The count of rests does not depend on the music.
    assert [str(second[what])[:4] for what in CONTROLS[:2]] == ["0.50", "0.50"]
