"""Blocks that are left out are identities for video and text, the last one too."""

import pytest
import torch

from tests.adapted import with_trained_values

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
SKIPPED = [(0,), (1,), (2,), (0, 2), (0, 1, 2)]


@torch.no_grad()
def by_hand(backbone, clip, skipped):
    """diffusers' parts in diffusers' order, with some of the blocks."""
    batch, _, frames, height, width = clip.latents.shape
    mask = torch.ones(clip.text.shape[:2])
    temb, text = backbone.time_embed(
        clip.timestep, clip.text, mask, hidden_dtype=clip.latents.dtype
    )
    visual = backbone.patch_embed(clip.latents.permute(0, 2, 1, 3, 4).flatten(0, 1))
    visual = visual.unflatten(0, (batch, -1)).flatten(1, 2)
    rotary = backbone.rope(
        backbone.pos_frequencies, frames, height // 2, width // 2, device="cpu",
        dtype=torch.float32,
    )  # fmt: skip
    for i, block in enumerate(backbone.transformer_blocks):
        if i not in skipped:
            visual, text = block(visual, text, temb, mask, rotary)
    out = backbone.proj_out(backbone.norm_out(visual, temb))
    out = out.reshape(batch, frames, height // 2, width // 2, 2, 2, -1)
    return out.permute(0, 6, 1, 2, 4, 3, 5).reshape(batch, -1, frames, height, width)


@torch.no_grad()
def run(model, clip, **options):
    return model(
        clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=(10, 10), **options
    )


@pytest.mark.parametrize("skipped", SKIPPED)
def test_equals_the_model_without_the_blocks(pristine_backbone, make_model, clip, skipped):
    expected = by_hand(pristine_backbone, clip, skipped)
    model = make_model()
    assert torch.equal(run(model, clip, skip_layers=skipped), expected)
    whole = by_hand(pristine_backbone, clip, ())
    assert (expected - whole).norm() / whole.norm() > 1e-2
    # The call before has left nothing behind.
    assert torch.equal(run(model, clip), whole)


@pytest.mark.parametrize("skipped", SKIPPED)
def test_the_adapter_of_a_block_goes_with_it(make_model, clip, skipped):
    model = with_trained_values(make_model())
    found = run(model, clip, skip_layers=skipped)
    whole = run(model, clip)
    for layer in skipped:
        block = model.backbone.transformer_blocks[layer]
        block.forward = lambda *, hidden_states, encoder_hidden_states, **_: (
            hidden_states,
            encoder_hidden_states,
        )
    assert torch.equal(run(model, clip), found)
    assert not torch.equal(whole, found)


@pytest.mark.parametrize("skipped", SKIPPED)
def test_with_weights_in_host_memory(pristine_backbone, make_model, clip, skipped):
    model = make_model(stream_blocks=True, modulations_on_host=True, gradient_checkpointing="full")
    for _ in range(2):
        found = run(model, clip, skip_layers=skipped)
        assert torch.equal(found, by_hand(pristine_backbone, clip, skipped))
        assert torch.equal(run(model, clip), by_hand(pristine_backbone, clip, ()))


def test_refused_in_training_and_outside_of_the_model(make_model, clip):
    model = make_model()
    inputs = (clip.latents, clip.text, clip.timestep, None, clip.audio)
    with pytest.raises(ValueError, match="skip_layers is for sampling"):
        model(*inputs, text_lengths=(10, 10), skip_layers=(1,))
    with pytest.raises(ValueError, match="block 3 cannot be skipped: the backbone has 3 blocks"):
        run(model, clip, skip_layers=(0, 3))
