import numpy as np
import pytest
import torch
from torch import nn

from musicinfuser.networks.zica import (
    FeatureAddition,
    ZeroInitCrossAttention,
    ZicaSpec,
    build_zica,
    zero_init,
)

WIDTH, HEADS = 32, 8
AUTHORS = ZicaSpec(init="random")
EQ_6 = ZicaSpec(num_heads=1, bias=False, scale="width", init="random")


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spread(module):
    """Larger weights than at the start, so that the softmax is far from uniform; in fp64."""
    stream = torch.Generator().manual_seed(9)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=stream) * 0.7
    return module.double()


def affine(layer, x):
    y = x @ layer.weight.detach().numpy().T
    return y if layer.bias is None else y + layer.bias.detach().numpy()


def attention_by_loops(module, visual, audio, *, num_heads, scale):
    """Eq. 6, one batch element, head and query at a time, in fp64."""
    visual, audio = visual.numpy(), audio.numpy()
    size = module.to_q.out_features // num_heads
    out = np.zeros_like(visual)
    for b in range(len(visual)):
        q, k = affine(module.to_q, visual[b]), affine(module.to_k, audio[b])
        v = affine(module.to_v, audio[b])
        attended = np.zeros_like(q)
        for h in range(num_heads):
            part = slice(h * size, (h + 1) * size)
            for n in range(len(q)):
                logits = np.array([q[n, part] @ k[s, part] for s in range(len(k))]) * scale
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                attended[n, part] = sum(w * v[s, part] for s, w in enumerate(weights))
        out[b] = visual[b] + affine(module.to_out, attended)
    return torch.from_numpy(out)


def test_authors_form_equals_explicit_attention():
    module = spread(ZeroInitCrossAttention(WIDTH, AUTHORS))
    assert all(layer.bias is not None for layer in module.children())
    visual, audio = draw(0, 2, 12, WIDTH).double(), draw(1, 2, 5, WIDTH).double()
    expected = attention_by_loops(
        module, visual, audio, num_heads=8, scale=1 / np.sqrt(WIDTH / HEADS)
    )
    torch.testing.assert_close(module(visual, audio), expected, rtol=1e-10, atol=1e-10)


def test_eq_6_as_printed_equals_explicit_attention():
    module = spread(ZeroInitCrossAttention(WIDTH, EQ_6))
    assert all(layer.bias is None for layer in module.children())
    visual, audio = draw(0, 2, 12, WIDTH).double(), draw(1, 2, 5, WIDTH).double()
    expected = attention_by_loops(module, visual, audio, num_heads=1, scale=1 / np.sqrt(WIDTH))
    torch.testing.assert_close(module(visual, audio), expected, rtol=1e-10, atol=1e-10)


def test_scale_by_width_with_several_heads():
    spec = ZicaSpec(num_heads=4, scale="width", init="random")
    module = spread(ZeroInitCrossAttention(WIDTH, spec))
    visual, audio = draw(0, 1, 6, WIDTH).double(), draw(1, 1, 5, WIDTH).double()
    expected = attention_by_loops(module, visual, audio, num_heads=4, scale=1 / np.sqrt(WIDTH))
    torch.testing.assert_close(module(visual, audio), expected, rtol=1e-10, atol=1e-10)


def test_every_visual_token_sees_every_audio_token_in_any_order():
    module = spread(ZeroInitCrossAttention(WIDTH, AUTHORS))
    visual, audio = draw(0, 1, 6, WIDTH).double(), draw(1, 1, 5, WIDTH).double().requires_grad_()
    shuffled = audio[:, torch.tensor([3, 0, 4, 1, 2])]
    torch.testing.assert_close(module(visual, audio), module(visual, shuffled))
    for n in range(6):
        (gradient,) = torch.autograd.grad(module(visual, audio)[0, n].square().sum(), audio)
        assert (gradient.abs().amax(dim=(0, 2)) > 0).all()


@pytest.mark.parametrize("form", ["cross_attention", "feature_addition"])
def test_zero_initialisation_is_an_identity_that_can_learn(form):
    torch.manual_seed(0)
    module = build_zica(WIDTH, ZicaSpec(form=form), (0,))["0"]
    visual, audio = draw(0, 2, 10, WIDTH), draw(1, 2, 5, WIDTH)
    out = module(visual, audio)
    assert torch.equal(out, visual)
    assert not module.to_out.weight.any() and not module.to_out.bias.any()
    out.square().sum().backward()
    moved = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"to_out.weight", "to_out.bias"}


@pytest.mark.parametrize("form", ["cross_attention", "feature_addition"])
def test_random_initialisation_changes_the_stream(form):
    torch.manual_seed(0)
    module = build_zica(WIDTH, ZicaSpec(form=form, init="random"), (0,))["0"]
    visual, audio = draw(0, 2, 10, WIDTH), draw(1, 2, 5, WIDTH)
    assert module.to_out.weight.abs().max() <= WIDTH**-0.5  # torch's own spread
    assert module.to_out.weight.abs().max() > 0.9 * WIDTH**-0.5
    assert (module(visual, audio) - visual).abs().mean() > 1e-2


def test_feature_addition_adds_the_frames_own_token():
    module = spread(FeatureAddition(WIDTH, ZicaSpec(form="feature_addition")))
    num_frames, per_frame = 3, 4
    visual, audio = (
        draw(0, 2, num_frames * per_frame, WIDTH).double(),
        draw(1, 2, num_frames, WIDTH).double(),
    )
    out = module(visual, audio)
    for b in range(2):
        for t in range(num_frames):
            added = affine(module.to_out, audio[b, t].numpy())
            for n in range(t * per_frame, (t + 1) * per_frame):
                expected = torch.from_numpy(visual[b, n].numpy() + added)
                torch.testing.assert_close(out[b, n], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", ["cross_attention", "feature_addition"])
def test_the_stream_keeps_its_type_under_autocast(form):
    module = build_zica(WIDTH, ZicaSpec(form=form, init="random"), (0,))["0"]
    with torch.autocast("cpu", torch.bfloat16):
        out = module(draw(0, 1, 10, WIDTH).bfloat16(), draw(1, 1, 5, WIDTH))
    assert out.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        out = module(draw(0, 1, 10, WIDTH), draw(1, 1, 5, WIDTH))
    assert out.dtype == torch.float32


def test_build_gives_each_chosen_block_its_own_adapter():
    zica = build_zica(WIDTH, ZicaSpec(), (1, 7))
    assert isinstance(zica, nn.ModuleDict) and list(zica) == ["1", "7"]
    assert set(zica.state_dict()) == {
        f"{layer}.to_{name}.{kind}"
        for layer in (1, 7)
        for name in ("q", "k", "v", "out")
        for kind in ("weight", "bias")
    }
    assert sum(p.numel() for p in zica.parameters()) == 2 * 4 * (WIDTH * WIDTH + WIDTH)
    assert not torch.equal(zica["1"].to_q.weight, zica["7"].to_q.weight)
    added = build_zica(WIDTH, ZicaSpec(form="feature_addition", bias=False), (2,))
    assert set(added.state_dict()) == {"2.to_out.weight"}


@pytest.mark.parametrize("form", ["cross_attention", "feature_addition"])
def test_output_projections_can_be_set_back_to_zero(form):
    zica = build_zica(WIDTH, ZicaSpec(form=form, init="random"), (0, 3))
    rest = {n: p.clone() for n, p in zica.named_parameters() if "to_out" not in n}
    for adapter in zica.values():
        zero_init(adapter.to_out)
    visual, audio = draw(0, 1, 10, WIDTH), draw(1, 1, 5, WIDTH)
    for adapter in zica.values():
        assert torch.equal(adapter(visual, audio), visual)
        assert adapter.to_out.weight.requires_grad
    assert all(torch.equal(zica.get_parameter(name), value) for name, value in rest.items())


def test_errors():
    with pytest.raises(ValueError, match="num_heads is 0; it must be at least 1"):
        ZicaSpec(num_heads=0)
    with pytest.raises(ValueError, match="num_heads is 5, which does not divide the width 32"):
        ZeroInitCrossAttention(WIDTH, ZicaSpec(num_heads=5))


def test_a_window_hides_audio_further_away():
    """Three tokens to a latent frame, five latent frames, one of them on each side."""
    spec = ZicaSpec(num_heads=4, frame_window=1, init="random")
    module = spread(ZeroInitCrossAttention(WIDTH, spec))
    visual, audio = draw(0, 2, 15, WIDTH).double(), draw(1, 2, 5, WIDTH).double()
    whole = spread(ZeroInitCrossAttention(WIDTH, ZicaSpec(num_heads=4, init="random")))
    found = module(visual, audio)
    for frame in range(5):
        first, last = max(frame - 1, 0), min(frame + 2, 5)
        own = slice(3 * frame, 3 * frame + 3)
        expected = whole(visual[:, own], audio[:, first:last])
        torch.testing.assert_close(found[:, own], expected, rtol=1e-10, atol=1e-10)


def test_queries_come_through_a_norm():
    spec = ZicaSpec(num_heads=4, query_norm=True, init="random")
    module = spread(ZeroInitCrossAttention(WIDTH, spec))
    plain = spread(ZeroInitCrossAttention(WIDTH, ZicaSpec(num_heads=4, init="random")))
    visual, audio = 30 * draw(0, 2, 6, WIDTH).double() + 4, draw(1, 2, 6, WIDTH).double()
    mean, spread_of = visual.mean(-1, keepdim=True), visual.var(-1, correction=0, keepdim=True)
    normalised = (visual - mean) / (spread_of + 1e-5).sqrt()
    added = plain(normalised, audio) - normalised
    torch.testing.assert_close(module(visual, audio) - visual, added, rtol=1e-8, atol=1e-8)
    assert len(list(module.parameters())) == len(list(plain.parameters()))


def test_a_narrow_adapter_has_its_own_width():
    spec = ZicaSpec(num_heads=2, width=8, scale="width", init="random")
    module = spread(ZeroInitCrossAttention(WIDTH, spec))
    assert [tuple(layer.weight.shape) for layer in module.children()] == [
        (8, WIDTH), (8, 8), (8, 8), (WIDTH, 8),
    ]  # fmt: skip
    visual, audio = draw(0, 2, 12, WIDTH).double(), draw(1, 2, 5, 8).double()
    expected = attention_by_loops(module, visual, audio, num_heads=2, scale=1 / np.sqrt(8))
    torch.testing.assert_close(module(visual, audio), expected, rtol=1e-10, atol=1e-10)


def test_options_survive_an_adapter_s_files():
    spec = ZicaSpec(num_heads=2, width=8, frame_window=2, query_norm=True)
    stored = {"width": WIDTH, **spec.stored()}
    assert stored["width"] == WIDTH and ZicaSpec.from_stored(stored) == spec
    assert ZicaSpec.from_stored({"width": WIDTH, "num_heads": 2}) == ZicaSpec(num_heads=2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frame_window": -1}, "frame_window is -1; use 0 or more, or null"),
        ({"width": 0}, "zica.width is 0; use 1 or more, or null"),
        ({"form": "feature_addition", "frame_window": 1}, "frame_window belongs to form"),
        ({"form": "feature_addition", "query_norm": True}, "query_norm belongs to form"),
        ({"form": "feature_addition", "width": 8}, "width belongs to form"),
    ],
)
def test_options_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ZicaSpec(**options)
