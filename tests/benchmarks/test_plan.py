"""The committed plan is what is counted today, and one row of it is computed by hand."""

import pytest

from benchmarks.plan import AS_IT_IS, BACKBONES, rows_of
from benchmarks.report import GIB, read_figures
from benchmarks.results_table import RESULTS
from preflight.profiles import PROFILES


@pytest.fixture(scope="module")
def committed() -> dict[str, dict[str, dict]]:
    """By backbone and profile."""
    result, _ = read_figures(RESULTS / "plan.json")
    found: dict[str, dict[str, dict]] = {name: {} for name in BACKBONES}
    for row in result["details"]["rows"]:
        found[row.pop("backbone")][row["profile"]] = row
    return found


def test_every_backbone_has_every_profile_that_it_can_run(committed) -> None:
    own_sides = {"40gb", "24gb", "16gb"}
    for name, rows in committed.items():
        left_out = {"wan_24gb", "8gb"} if name == "Mochi" else own_sides
        assert rows.keys() == {AS_IT_IS, *PROFILES} - left_out


@pytest.mark.parametrize("name", ["Mochi", "Wan 1.3B"])
def test_the_committed_plan_is_what_is_counted(committed, name: str) -> None:
    assert rows_of(*BACKBONES[name]) == list(committed[name].values())


def test_one_row_by_hand(committed) -> None:
    """Wan 1.3B, 81 frames of 480x832, in 8 bits with whole blocks recomputed, from its sizes."""
    tokens, text, frames = 21 * 30 * 52, 512, 21
    width, inner, blocks, with_audio, rank = 1536, 8960, 30, 10, 64
    # q, k, v and out of self-attention, q and out of attention to text; the feed-forward's two.
    met_by_video = blocks * (6 * width**2 + 2 * width * inner)
    met_by_text = blocks * 2 * width**2
    lora = blocks * 6 * rank * 2 * width, blocks * 2 * rank * 2 * width
    zica = with_audio * 2 * width**2
    attended = 4 * width * (blocks * tokens * (tokens + text) + with_audio * tokens * frames)
    frozen, frozen_text = 2 * tokens * met_by_video, 2 * text * met_by_text
    trained = 2 * tokens * (lora[0] + zica) + 2 * text * lora[1]
    forward = frozen + frozen_text + trained + attended
    # Of attention five products for two; no gradient of the text; trained weights have one.
    backward = frozen + 2 * trained + 5 * attended / 2
    row = committed["Wan 1.3B"]["int8"]
    assert row["TFLOP per step"] == pytest.approx((2 * forward + backward) / 1e12, abs=0.5)

    # What the same training was counted to hold in bf16, less a byte of each weight in 8 bits; int8
    # has five bytes for a row.
    in_8_bits = blocks * (8 * width**2 + 2 * width * inner)
    rows = blocks * (8 * width + inner + width)
    _, figures = read_figures(RESULTS / "memory_wan_1b.json")
    counted = {figure.what: figure.value for figure in figures}
    in_bf16 = float(counted["training, 81 frames, full: together"]) * GIB
    held = (in_bf16 - in_8_bits + 5 * rows) / 1e9
    assert row["GB on the GPU"] == pytest.approx(held, rel=0.03)
    assert row["GB in host memory"] == 0
