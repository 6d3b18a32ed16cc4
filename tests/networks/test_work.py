"""Counted work against the published sizes, hand-made sums and torch's own counter."""

import pytest

from benchmarks.meta_memory import counted_step
from benchmarks.profiles import build_on_meta, read_profile
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.work import POLICIES, Work
from musicinfuser.networks.zica import ZicaSpec

# TFLOP at 73 frames of 480x848 with 256 text tokens and LoRA on the visual stream.
FORWARD = {
    "visual_linears": 224.7, "text_linears": 0.9, "attention": 258.3, "zica_linears": 12.5,
    "lora": 3.1, "forward": 499.6, "backward": 902.7, "useful": 1402.3,
}  # fmt: skip
# Nothing, authors' policy, attention kept, whole blocks: a training step by frames.
STEPS = {
    37: (537, 650, 667, 744),
    61: (1072, 1249, 1276, 1462),
    73: (1402, 1612, 1644, 1902),
    85: (1774, 2016, 2053, 2395),
    145: (4261, 4662, 4724, 5668),
}


@pytest.fixture(scope="module")
def mochi() -> MusicModel:
    lora = LoraSpec(rank=64, alpha=64.0, streams="visual")
    return build_on_meta(read_profile(), lora=lora, compile_blocks=False)


@pytest.mark.parametrize("name", FORWARD)
def test_terms_of_one_step(mochi: MusicModel, name: str) -> None:
    work = Work.of(mochi, 73, 480, 848, text_tokens=256)
    found = work.terms[name] if name in work.terms else getattr(work, name)
    assert found == pytest.approx(FORWARD[name], abs=0.06)


@pytest.mark.parametrize("num_frames", STEPS)
def test_steps_by_policy_and_length(mochi: MusicModel, num_frames: int) -> None:
    work = Work.of(mochi, num_frames, 480, 848, text_tokens=256)
    counted = {policy: work.training_step(policy) for policy in POLICIES}
    audio_again = counted.pop("self_attention") - counted["attention"]
    assert audio_again == pytest.approx(work.terms["zica_attention"])
    assert list(counted.values()) == pytest.approx(STEPS[num_frames], abs=0.6)


def test_sampling_is_a_pass_with_text_and_one_without(mochi: MusicModel) -> None:
    # 30 valid tokens, 64 steps.
    short, long = (Work.of(mochi, frames, 480, 848, text_tokens=30) for frames in (73, 145))
    assert short.sampling(64) == pytest.approx(62_700, rel=1e-3)
    assert long.sampling(64) == pytest.approx(178_000, rel=2e-3)


def test_a_filled_up_text_is_as_long_in_both_passes() -> None:
    model = build_on_meta(read_profile("wan_1b"), num_layers=3, lora=None, compile_blocks=False)
    work = Work.of(model, 81, 480, 832, text_tokens=512)
    assert work.sampling(2) == pytest.approx(4 * work.forward)


def test_a_narrower_adapter_takes_less() -> None:
    zica = ZicaSpec(width=512)
    model = build_on_meta(read_profile("wan_1b"), num_layers=3, zica=zica, compile_blocks=False)
    work = Work.of(model, 81, 480, 832, text_tokens=512)
    assert (work.zica_weights, work.zica_width) == (2 * 1536 * 512, 512)
    assert work.lora_weights == 3 * 6 * 64 * 2 * 1536


@pytest.mark.parametrize(
    ("profile", "clip", "text_tokens", "policy", "first_given"),
    [
        ("base", (73, 480, 848), 32, "full", False),
        ("wan_1b", (81, 480, 832), 512, "full", False),
        ("wan_5b", (73, 480, 832), 512, "self_attention", True),
    ],
)
def test_a_step_at_full_width_takes_what_torch_counts(
    profile: str, clip: tuple[int, int, int], text_tokens: int, policy: str, first_given: bool
) -> None:
    """Of three blocks, one of them with audio; the first one's input needs no gradient.

    With a first frame every token has a noise level to embed, once for all blocks, which is left
    out.
    """
    model = build_on_meta(
        read_profile(profile), num_layers=3, layers=[0], gradient_checkpointing=policy,
        compile_blocks=False,
    )  # fmt: skip
    work = Work.of(model, *clip, text_tokens=text_tokens)
    found = counted_step(model, *clip, first_given=first_given)
    assert work.training_step(policy) == pytest.approx(found, rel=0.02)
