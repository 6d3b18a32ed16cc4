from datamodules.training_choice import share_of


def test_a_smaller_share_is_part_of_a_larger_one_and_keeps_the_order() -> None:
    clips = [f"clip {n:02d}" for n in range(40)]
    half = share_of(clips, 0.5, source="aist", seed=1)
    quarter = share_of(clips, 0.25, source="aist", seed=1)
    assert len(half) == 20 and len(quarter) == 10
    assert set(quarter) < set(half) and half == sorted(half)
    assert share_of(clips, 0.5, source="aist", seed=2) != half
    assert share_of(clips, 1.0, source="aist", seed=1) == clips
    assert len(share_of(clips, 0.001, source="aist", seed=1)) == 1
