import math

import pytest
import torch

from musicinfuser.networks.zica import PEAK_LOGIT, ROTARY_BASE, ZeroInitCrossAttention, ZicaSpec

WIDTH, HEADS, FRAMES, TOKENS = 32, 2, 5, 3


def make(positions: str, **options) -> ZeroInitCrossAttention:
    torch.manual_seed(0)
    spec = ZicaSpec(num_heads=HEADS, init="random", positions=positions, **options)
    return ZeroInitCrossAttention(WIDTH, spec)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, FRAMES * TOKENS, WIDTH), torch.randn(2, FRAMES, WIDTH)


def rotated(vector: list[float], frame: int) -> list[float]:
    """Pair j of a head's channels turned by frame * base^(-2j / width)."""
    turned = []
    for j in range(0, len(vector), 2):
        angle = frame * ROTARY_BASE ** (-j / len(vector))
        even, odd = vector[j], vector[j + 1]
        turned += [
            even * math.cos(angle) - odd * math.sin(angle),
            even * math.sin(angle) + odd * math.cos(angle),
        ]
    return turned


def attention_by_hand(adapter, visual, audio, token: int) -> torch.Tensor:
    """Eq. 6 for one visual token of the first sample, with rotated queries and keys."""
    head_width, frame = WIDTH // HEADS, token // TOKENS
    q, k, v = adapter.to_q(visual)[0, token], adapter.to_k(audio)[0], adapter.to_v(audio)[0]
    out = []
    for head in range(HEADS):
        part = slice(head * head_width, (head + 1) * head_width)
        query = rotated(q[part].tolist(), frame)
        logits = [
            sum(a * b for a, b in zip(query, rotated(k[s, part].tolist(), s), strict=True))
            / math.sqrt(head_width)
            for s in range(FRAMES)
        ]
        weights = torch.tensor(logits).softmax(0)
        out.append(weights @ v[:, part])
    return visual[0, token] + adapter.to_out(torch.cat(out))


@pytest.mark.parametrize("positions", ["rotary", "aligned"])
@pytest.mark.parametrize("token", [0, 4, 14])
def test_against_attention_by_hand(positions: str, token: int) -> None:
    adapter = make(positions)
    visual, audio = inputs()
    expected = attention_by_hand(adapter, visual, audio, token)
    torch.testing.assert_close(adapter(visual, audio)[0, token], expected)


def test_aligned_hears_its_own_moment_from_the_start() -> None:
    """Where content says nothing, the biases alone decide."""
    adapter = make("aligned")
    assert torch.equal(adapter.to_q.bias, adapter.to_k.bias)
    audio = torch.eye(FRAMES, WIDTH)[None] * 1000
    with torch.no_grad():
        for layer in (adapter.to_q, adapter.to_k):
            layer.weight.zero_()
        adapter.to_v.weight.copy_(torch.eye(WIDTH) / 1000)
        adapter.to_v.bias.zero_()
        adapter.to_out.weight.copy_(torch.eye(WIDTH))
        adapter.to_out.bias.zero_()
        heard = adapter(torch.zeros(1, FRAMES * TOKENS, WIDTH), audio)[0, ::TOKENS, :FRAMES]
    # Row t: how much latent frame t hears of each moment, in the first head.
    assert heard.argmax(dim=1).tolist() == list(range(FRAMES))
    assert heard.sum(dim=1) == pytest.approx(1.0)
    assert (heard.diag() > 1.5 * heard[1, 0]).all()
    assert heard[0, 1] > heard[0, 2]
    assert heard[1, 0].item() == pytest.approx(heard[1, 2].item(), rel=1e-4)
    bias = adapter.to_q.bias[: WIDTH // HEADS]
    peak = (bias @ bias) * adapter.logit_scale
    assert peak.item() == pytest.approx(PEAK_LOGIT, rel=1e-5)


def test_without_positions_time_is_unknown() -> None:
    visual, audio = inputs()
    for positions, is_equal in (("none", True), ("rotary", False)):
        adapter = make(positions)
        swapped = adapter(visual, audio.flip(1))
        assert torch.allclose(swapped, adapter(visual, audio), atol=1e-6) is is_equal


def test_zero_initialised_positions_change_nothing() -> None:
    visual, audio = inputs()
    for positions in ("rotary", "aligned"):
        adapter = ZeroInitCrossAttention(WIDTH, ZicaSpec(num_heads=HEADS, positions=positions))
        assert torch.equal(adapter(visual, audio), visual)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "aligned", "bias": False}, "works through biases"),
        ({"positions": "rotary", "form": "feature_addition"}, "belongs to form cross_attention"),
    ],
)
def test_settings_that_cannot_take_effect(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ZicaSpec(**options)


def test_heads_of_odd_width() -> None:
    with pytest.raises(ValueError, match=r"not 3: 6 channels over 2 heads; .* 4, such as 4, or"):
        ZeroInitCrossAttention(6, ZicaSpec(num_heads=2, positions="rotary"))
