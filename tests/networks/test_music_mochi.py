"""What the adapted model computes; how it trains is in test_music_mochi_training.py."""

import pytest
import torch

from musicinfuser.networks.backbones.mochi_block import _mochi_forward
from musicinfuser.networks.layer_selection import LayerStrategy
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.zica import FeatureAddition, ZeroInitCrossAttention, ZicaSpec

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
BOTH = LoraSpec(rank=2, alpha=2.0)
FORMS = ["cross_attention", "feature_addition"]


def bare(backbone, clip, *, text=None, mask=None, samples=slice(None)):
    """diffusers' own forward."""
    text = clip.text if text is None else text
    mask = torch.ones(text.shape[:2]) if mask is None else mask
    with torch.no_grad():
        return backbone(
            clip.latents[samples], text[samples], clip.timestep[samples], mask[samples],
            return_dict=False,
        )[0]  # fmt: skip


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("with_audio", [True, False])
def test_equals_the_bare_backbone_bit_for_bit_at_the_start(
    pristine_backbone, make_model, clip, form, with_audio
):
    model = make_model(layers=[0, 1, 2], zica=ZicaSpec(form=form), lora=BOTH)
    audio = clip.audio if with_audio else None
    with torch.no_grad():
        out = model(clip.latents, clip.text, clip.timestep, None, audio, text_lengths=(10, 10))
    assert torch.equal(out, bare(pristine_backbone, clip))
    assert out.abs().mean() > 1e-2


def test_equals_the_bare_backbone_bit_for_bit_under_checkpointing_and_with_a_mask(
    pristine_backbone, make_model, clip
):
    model = make_model(gradient_checkpointing="full")
    expected = bare(pristine_backbone, clip)
    for mask, lengths in ((None, (10, 10)), (torch.ones(2, 10), None)):
        out = model(clip.latents, clip.text, clip.timestep, mask, clip.audio, text_lengths=lengths)
        assert out.requires_grad
        torch.testing.assert_close(out.detach(), expected, rtol=0, atol=1e-6)
    assert torch.equal(model(clip.latents, clip.text, clip.timestep, None, clip.audio,
                             text_lengths=(10, 10)), expected)  # fmt: skip


def test_trimming_equals_the_bare_backbone_on_the_trimmed_text(pristine_backbone, make_model, clip):
    model = make_model()
    with torch.no_grad():
        out = model(clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=(7, 7))
    assert torch.equal(out, bare(pristine_backbone, clip, text=clip.text[:, :7]))
    assert not torch.allclose(out, bare(pristine_backbone, clip), atol=1e-3)


@pytest.mark.parametrize("lengths", [(7, 10), (10, 3), (0, 10), (1, 0), (0, 0)])
def test_padded_captions_of_different_length_equal_diffusers(
    pristine_backbone, make_model, clip, lengths
):
    model = make_model()
    mask = (torch.arange(10) < torch.tensor(lengths)[:, None]).float()
    expected = bare(pristine_backbone, clip, mask=mask)
    inputs = (clip.latents, clip.text, clip.timestep)
    with torch.no_grad():
        by_mask = model(*inputs, mask, clip.audio)
        by_lengths = model(*inputs, None, clip.audio, text_lengths=lengths)
    assert relative(by_mask, expected) < 1e-6
    assert relative(by_lengths, expected) < 1e-6
    for b, length in enumerate(lengths):
        one = slice(b, b + 1)
        alone = bare(pristine_backbone, clip, text=clip.text[:, :length], samples=one)
        assert relative(by_lengths[one], alone) < 1e-6
    assert relative(bare(pristine_backbone, clip), expected) > 1e-3


def test_mask_and_lengths_agree_with_trained_adapters(make_model, randomise, clip):
    model = randomise(make_model())
    with torch.no_grad():
        inputs = (clip.latents, clip.text, clip.timestep)
        by_mask = model(*inputs, clip.text_mask, clip.audio)
        by_lengths = model(*inputs, None, clip.audio, text_lengths=clip.text_lengths)
    assert relative(by_lengths, by_mask) < 1e-6


def test_padding_never_enters_a_block(make_model, clip):
    """Not-a-number beyond the longest caption stays outside, and blocks see its length only."""
    model = make_model(lora=None)
    lengths_seen = []
    model.backbone.transformer_blocks[0].register_forward_pre_hook(
        lambda module, args, kwargs: lengths_seen.append(kwargs["encoder_hidden_states"].shape),
        with_kwargs=True,
    )
    padded = clip.text.clone()
    padded[:, 7:] = torch.nan
    with torch.no_grad():
        inputs = (clip.latents, padded, clip.timestep, None, clip.audio)
        for lengths in ((7, 5), (6, 6), (0, 0)):
            assert model(*inputs, text_lengths=lengths).isfinite().all()
    assert lengths_seen == [(2, 7, 96), (2, 6, 96), (2, 0, 96)]


def test_padding_between_lengths_is_masked(make_model, randomise, clip):
    model = randomise(make_model())
    other = clip.text.clone()
    other[0, 7:] = 30.0
    with torch.no_grad():
        first, second = (
            model(
                clip.latents, text, clip.timestep, None, clip.audio,
                text_lengths=clip.text_lengths,
            )
            for text in (clip.text, other)
        )  # fmt: skip
    assert relative(second, first) < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_audio_reaches_its_own_clip_only(make_model, randomise, clip, form):
    model = randomise(make_model(zica=ZicaSpec(form=form)))
    changed = clip.audio.clone()
    changed[0] += 1.0
    with torch.no_grad():
        inputs = (clip.latents, clip.text, clip.timestep, None)
        outs = [
            model(*inputs, audio, text_lengths=(10, 10)) for audio in (clip.audio, changed, None)
        ]
    assert relative(outs[1][0], outs[0][0]) > 1e-3
    assert torch.equal(outs[1][1], outs[0][1])
    assert relative(outs[2], outs[0]) > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_audio_enters_after_each_chosen_block_on_the_visual_stream(
    make_model, randomise, clip, form
):
    """Against the same blocks, run one after the other with their adapters between them."""
    model = randomise(make_model(layers=[0, 2], zica=ZicaSpec(form=form), lora=None))
    backbone = model.backbone
    seen, conditions = {}, []
    for i, block in enumerate(backbone.transformer_blocks):
        block.register_forward_pre_hook(
            lambda module, args, kwargs, i=i: seen.update({i: kwargs}), with_kwargs=True
        )
    backbone.norm_out.register_forward_pre_hook(lambda module, args: conditions.append(args[1]))
    with torch.no_grad():
        out = model(clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=(10, 10))
        audio = model.audio_projector(clip.audio, 3)

        def after_block(i):
            names = ("hidden_states", "encoder_hidden_states", "temb", "encoder_attention_mask")
            inputs = [seen[i][name] for name in (*names, "image_rotary_emb")]
            return _mochi_forward(backbone.transformer_blocks[i], *inputs)

        visual, text = after_block(0)
        assert torch.equal(seen[1]["hidden_states"], model.zica["0"](visual, audio))
        assert not torch.equal(seen[1]["hidden_states"], visual)
        assert torch.equal(seen[1]["encoder_hidden_states"], text)
        assert torch.equal(seen[2]["hidden_states"], after_block(1)[0])
        final = model.zica["2"](after_block(2)[0], audio)
        patches = backbone.proj_out(backbone.norm_out(final, conditions[0]))
    # (frame, row of patches, column of patches, row in patch, column in patch, channel)
    patches = patches.reshape(2, 3, 2, 3, 2, 2, 12)
    for t, y, x, c in ((0, 0, 0, 0), (1, 3, 2, 5), (2, 2, 5, 11)):
        expected = patches[:, t, y // 2, x // 2, y % 2, x % 2, c]
        assert torch.equal(out[:, c, t, y, x], expected)


def test_form_and_layers_are_as_asked(make_model):
    model = make_model(layers=LayerStrategy("last", num_layers=2), zica=ZicaSpec(num_heads=4))
    assert model.layers == (1, 2) and list(model.zica) == ["1", "2"]
    assert all(isinstance(z, ZeroInitCrossAttention) and z.num_heads == 4
               for z in model.zica.values())  # fmt: skip
    model = make_model(layers=[1], zica=ZicaSpec(form="feature_addition"))
    assert isinstance(model.zica["1"], FeatureAddition)


def test_a_model_without_audio_ignores_it(pristine_backbone, make_model, clip):
    model = make_model(layers=[], lora=None)
    assert model.audio_projector is None and not list(model.zica)
    with torch.no_grad():
        out = model(clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=(10, 10))
    assert torch.equal(out, bare(pristine_backbone, clip))


def test_bf16_backbone_under_autocast(pristine_backbone, make_model, clip):
    import copy

    reference = copy.deepcopy(pristine_backbone).bfloat16()
    model = make_model(dtype=torch.bfloat16, layers=[0, 1, 2])
    inputs = (clip.latents.bfloat16(), clip.text.bfloat16(), clip.timestep)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = reference(*inputs, torch.ones(2, 10), return_dict=False)[0]
        out = model(clip.latents, *inputs[1:], None, clip.audio, text_lengths=(10, 10))
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)


def test_errors(make_model, clip):
    model = make_model()
    inputs = (clip.latents, clip.text, clip.timestep)
    for mask, lengths in ((None, None), (clip.text_mask, (7, 10))):
        with pytest.raises(ValueError, match="exactly one of `encoder_attention_mask` and"):
            model(*inputs, mask, text_lengths=lengths)
    for lengths in ((7,), (7, 11), (-1, 3), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"text_lengths \(.* do not fit text of shape"):
            model(*inputs, text_lengths=lengths)
    for policy in (True, False, "some"):
        with pytest.raises(ValueError, match=f"gradient_checkpointing is {policy!r}; set it to fu"):
            make_model(gradient_checkpointing=policy)
    for size in ((5, 6), (4, 3)):
        with pytest.raises(ValueError, match=f"latents of {size[0]}x{size[1]} cannot be cut"):
            model(torch.zeros(2, 12, 3, *size), clip.text, clip.timestep, text_lengths=(7, 10))
    with pytest.raises(ValueError, match="block 3, but the backbone has 3 blocks"):
        make_model(layers=[3])
    with pytest.raises(ValueError, match="num_heads is 7, which does not divide the width 128"):
        make_model(zica=ZicaSpec(num_heads=7))
