import pytest
import torch
from diffusers.models.attention_processor import MochiAttention, MochiAttnProcessor2_0

from musicinfuser.networks.attention import JointAttention, apply_rotary

BATCH, NUM_VISUAL, NUM_TEXT, WIDTH, TEXT_WIDTH, HEADS = 3, 12, 6, 32, 24, 4


def attention(*, is_last=False, dtype=torch.float32):
    torch.manual_seed(0)
    module = MochiAttention(
        query_dim=WIDTH, added_kv_proj_dim=TEXT_WIDTH, processor=MochiAttnProcessor2_0(),
        heads=HEADS, dim_head=WIDTH // HEADS, added_proj_bias=False, out_dim=WIDTH,
        out_context_dim=TEXT_WIDTH, context_pre_only=is_last,
    )  # fmt: skip
    for norm in (module.norm_q, module.norm_k, module.norm_added_q, module.norm_added_k):
        norm.weight.data.uniform_(0.5, 1.5)
    return module.to(dtype).requires_grad_(False)


def inputs(num_text=NUM_TEXT, dtype=torch.float32):
    stream = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=stream)

    angles = normal(NUM_VISUAL, HEADS, WIDTH // HEADS // 2)
    visual, text = normal(BATCH, NUM_VISUAL, WIDTH), normal(BATCH, num_text, TEXT_WIDTH)
    return visual.to(dtype), text.to(dtype), (angles.cos(), angles.sin())


def both(module, visual, text, mask, rotary, own_mask):
    theirs = module(visual, text, attention_mask=mask, image_rotary_emb=rotary)
    module.processor = JointAttention()
    return theirs, module(visual, text, attention_mask=own_mask, image_rotary_emb=rotary)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_last", [False, True])
def test_equals_diffusers_without_padding(is_last, dtype):
    visual, text, rotary = inputs(dtype=dtype)
    full = torch.ones(BATCH, NUM_TEXT, dtype=torch.bool)
    module = attention(is_last=is_last, dtype=dtype)
    theirs, ours = both(module, visual, text, full, rotary, None)
    assert torch.equal(theirs[0], ours[0]) and torch.equal(theirs[1], ours[1])
    assert ours[0].dtype == dtype
    assert ours[1].shape[2] == (WIDTH if is_last else TEXT_WIDTH)


@pytest.mark.parametrize("is_last", [False, True])
def test_equals_diffusers_on_every_valid_token_of_ragged_captions(is_last):
    visual, text, rotary = inputs()
    mask = torch.arange(NUM_TEXT) < torch.tensor([[6], [2], [0]])
    theirs, ours = both(attention(is_last=is_last), visual, text, mask, rotary, mask)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[1][mask], theirs[1][mask], rtol=1e-5, atol=1e-6)
    # The mask matters: without it padding would be attended to.
    unmasked = both(attention(is_last=is_last), visual, text, mask, rotary, None)[1]
    assert (unmasked[0][1:] - ours[0][1:]).abs().max() > 1e-3
    assert torch.allclose(unmasked[0][0], ours[0][0], atol=1e-6)


def test_padding_has_no_influence():
    visual, text, rotary = inputs()
    mask = torch.arange(NUM_TEXT) < torch.tensor([[6], [2], [0]])
    module = attention()
    ours = both(module, visual, text, mask, rotary, mask)[1]
    other = torch.where(mask[..., None], text, 100.0)
    changed = both(module, visual, other, mask, rotary, mask)[1]
    assert torch.equal(ours[0], changed[0])
    assert torch.equal(ours[1][mask], changed[1][mask])


def test_no_text_at_all_is_plain_self_attention():
    visual, text, rotary = inputs(num_text=0)
    empty = torch.ones(BATCH, 0, dtype=torch.bool)
    theirs, ours = both(attention(), visual, text, empty, rotary, None)
    assert torch.equal(theirs[0], ours[0])
    assert ours[1].shape == (BATCH, 0, TEXT_WIDTH)


def test_rotation_is_a_complex_product_and_keeps_the_type():
    stream = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, 3, 8, generator=stream)
    angles = torch.randn(5, 3, 4, generator=stream)
    rotated = apply_rotary(x, angles.cos(), angles.sin())
    numbers = torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous())
    expected = torch.view_as_real(numbers * torch.polar(torch.ones_like(angles), angles))
    torch.testing.assert_close(rotated, expected.flatten(-2))
    half = apply_rotary(x.bfloat16(), angles.cos(), angles.sin())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected.flatten(-2), rtol=0.02, atol=0.02)
