"""Wan through the adapted transformer, against diffusers' own model."""

import copy
import math
import re
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import pad

from musicinfuser.networks.adapted_block import compiled
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.backbones import Wan, Wan5B, wan, wan_block
from musicinfuser.networks.lora import LoraSpec, is_lora_name
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests import small_wan
from tests.adapted import with_memory, with_trained_values

AUDIO_WIDTH = 96
LENGTHS = (7, 40)


@pytest.fixture(scope="module")
def base():
    return small_wan.transformer()


@pytest.fixture
def make(base):
    """``make(**changes)``: a fresh model on a copy of the backbone."""

    def build(*, model=base, **changes):
        settings = {
            "layers": [0, 2],
            "zica": ZicaSpec(num_heads=4),
            "lora": LoraSpec(rank=2, alpha=2.0),
            "audio_width": AUDIO_WIDTH,
        }
        return MusicModel(copy.deepcopy(model), **with_memory(settings | changes))

    return build


@pytest.fixture(scope="module")
def clip():
    """Two clips: 3 latent frames of 4x6, captions of 7 and 40 tokens, 20 of audio."""
    stream = torch.Generator().manual_seed(11)

    def normal(*shape):
        return torch.randn(*shape, generator=stream)

    return SimpleNamespace(
        latents=normal(2, 16, 3, 4, 6),
        timestep=torch.tensor([310.0, 870.5]),
        text=normal(2, 40, 64),
        audio=normal(2, 20, AUDIO_WIDTH),
    )


@pytest.fixture(scope="module")
def base_5b():
    return small_wan.transformer(in_channels=48, out_channels=48)


@pytest.fixture(scope="module")
def clip_5b(clip):
    """The same for the 5B, whose first clip begins with a given frame: levels of each frame."""
    levels = clip.timestep[:, None].repeat(1, 3)
    levels[0, 0] = 0
    latents = torch.cat([clip.latents, -clip.latents, 2 * clip.latents], dim=1)
    return SimpleNamespace(**vars(clip) | {"latents": latents, "timestep": levels})


def filled_up(text, lengths=LENGTHS):
    """As WanPipeline gives text: zeros after each sample's own tokens, 512 in all."""
    found = torch.zeros(len(text), 512, text.shape[2], dtype=text.dtype)
    for b, n in enumerate(lengths):
        found[b, :n] = text[b, :n]
    return found


def bare(model, clip, *, text=None):
    """diffusers' own forward, which predicts eps - z."""
    text = filled_up(clip.text) if text is None else text
    with torch.no_grad():
        return model(clip.latents, clip.timestep, text, return_dict=False)[0]


def run(model, clip, *, audio=None, **options):
    options = {"text_lengths": LENGTHS} | options
    return model(clip.latents, clip.text, clip.timestep, None, audio, **options)


@pytest.mark.parametrize(
    "zica", [ZicaSpec(), ZicaSpec(num_heads=4, width=48), ZicaSpec(form="feature_addition")]
)
@pytest.mark.parametrize("with_audio", [True, False])
def test_equals_the_bare_backbone_bit_for_bit_at_the_start(base, make, clip, zica, with_audio):
    model = make(layers=[0, 1, 2], zica=zica)
    with torch.no_grad():
        out = run(model, clip, audio=clip.audio if with_audio else None)
    assert torch.equal(out, -bare(base, clip))
    assert out.abs().mean() > 1e-2


def test_diffusers_own_forward_runs_over_adapted_blocks(base, make, clip):
    assert torch.equal(bare(make().backbone, clip), bare(base, clip))


def test_a_noise_level_is_sigma_times_1000(make):
    assert make().timestep(torch.tensor([0.0, 0.25, 1.0])).tolist() == [0.0, 250.0, 1000.0]


def test_text_is_filled_up_with_zeros_that_take_part(base, make, clip):
    """Whatever stands after a caption's own tokens; and without filling up it is another text."""
    model = make(lora=None)
    expected = -bare(base, clip)
    dirty = clip.text.clone()
    dirty[0, 7:] = torch.nan
    mask = torch.arange(40) < torch.tensor(LENGTHS)[:, None]
    inputs = (clip.latents, dirty, clip.timestep)
    with torch.no_grad():
        assert torch.equal(model(*inputs, text_lengths=LENGTHS), expected)
        assert torch.equal(model(*inputs, mask), expected)
        first = model(*(x[:1] for x in inputs), text_lengths=(7,))
    torch.testing.assert_close(first, expected[:1], rtol=0, atol=1e-5)
    cut = SimpleNamespace(
        **vars(clip) | {"latents": clip.latents[:1], "timestep": clip.timestep[:1]}
    )
    assert (bare(base, cut, text=clip.text[:1, :7]) + first).abs().max() > 1e-3


def gradients(model, clip):
    out = run(model, clip, audio=clip.audio)
    out.square().mean().backward()
    return out.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("width", [None, 48])
def test_gradients_reach_adapters_alone(make, clip, width):
    model = with_trained_values(make(zica=ZicaSpec(num_heads=4, width=width)))
    assert model.zica["0"].to_q.weight.shape == (width or 128, 128)
    _, found = gradients(model, clip)
    assert found.keys() == model.trainable_names()
    assert all(gradient.any() for name, gradient in found.items() if not name.endswith("k.bias"))
    parts = {"lora" if is_lora_name(name) else name.split(".")[0] for name in found}
    assert parts == {"lora", "zica", "audio_projector"}
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    "ways",
    [
        {"gradient_checkpointing": "full"},
        {"gradient_checkpointing": "attention"},
        {"gradient_checkpointing": "self_attention"},
        {"gradient_checkpointing": "full", "stream_blocks": True, "offload_inputs": True},
    ],
)
@pytest.mark.parametrize("is_given", [False, True])
def test_no_way_to_save_memory_changes_a_bit(make, base, base_5b, clip, clip_5b, ways, is_given):
    model, clip = (base_5b, clip_5b) if is_given else (base, clip)
    expected, found = (
        gradients(with_trained_values(make(model=model, **changes)), clip) for changes in ({}, ways)
    )
    assert torch.equal(found[0], expected[0])
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(found[1][name], gradient) for name, gradient in expected[1].items())


def test_compiled_blocks_are_whole_graphs_with_the_same_bits(make, base_5b, clip_5b):
    """With one noise level and with one per frame: the blocks are the 5B's."""
    ways = {"model": base_5b, "gradient_checkpointing": "attention"}
    model = with_trained_values(make(compile_blocks=True, **ways))
    model.set_block_run(compiled(wan_block.run_block, backend="eager"))
    for levels in (clip_5b.timestep, clip_5b.timestep[:, 1]):
        clip = SimpleNamespace(**vars(clip_5b) | {"timestep": levels})
        expected = gradients(with_trained_values(make(**ways)), clip)
        model.zero_grad()
        found = gradients(model, clip)
        assert torch.equal(found[0], expected[0])
        assert all(torch.equal(found[1][name], value) for name, value in expected[1].items())
    torch._dynamo.reset()


def test_skipped_blocks_and_scaled_lora(base, make, clip):
    model = with_trained_values(make(layers=[]))
    with torch.no_grad():
        assert torch.equal(run(model, clip, lora_scale=0.0), -bare(base, clip))
        without = copy.deepcopy(base)
        del without.blocks[1]
        assert torch.equal(run(model, clip, lora_scale=0.0, skip_layers=(1,)), -bare(without, clip))


def test_lora_is_on_the_projections_of_both_attentions(base):
    names = [name for name, _ in base.named_modules()]
    projections = ("to_q", "to_k", "to_v", "to_out.0")
    for streams, attentions in (("both", (1, 2)), ("visual", (1,))):
        hits = {name for name in names if re.fullmatch(Wan.lora_pattern(streams), name)}
        assert hits == {
            f"blocks.{i}.attn{a}.{p}" for i in range(3) for a in attentions for p in projections
        }


def test_bf16_under_autocast_equals_diffusers_without(tmp_path, base, make, clip):
    """WanPipeline knows no autocast, so embedding and head run outside of ours."""
    base.save_pretrained(tmp_path / "transformer")
    low = build_backbone(BackboneSpec(pretrained=str(tmp_path), family="wan"))
    lowered = SimpleNamespace(**vars(clip) | {"latents": clip.latents.bfloat16()})
    expected = bare(low, lowered, text=filled_up(clip.text).bfloat16())
    for lora in (None, LoraSpec(rank=2, alpha=2.0)):
        model = make(model=low, lora=lora)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            out = run(model, clip, audio=clip.audio)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, -expected)


def types(model):
    return {name: p.dtype for name, p in model.named_parameters()}


def test_random_weights_have_right_rotations_and_the_types_of_loaded_ones(tmp_path, base):
    base.save_pretrained(tmp_path / "transformer")
    config = str(tmp_path / "transformer" / "config.json")
    for dtype in ("float32", "bfloat16"):
        drawn = build_backbone(BackboneSpec(config=config, dtype=dtype, family="wan"))
        loaded = build_backbone(BackboneSpec(pretrained=str(tmp_path), dtype=dtype, family="wan"))
        assert types(drawn) == types(loaded)
        for model in (drawn, loaded):
            for name, buffer in base.rope.named_buffers():
                assert torch.equal(model.rope.get_buffer(name), buffer), name
    kept = {name for name, dtype in types(loaded).items() if dtype == torch.float32}
    assert {re.sub(r"\d+", "N", name) for name in kept} == {
        "scale_shift_table", "blocks.N.scale_shift_table", "blocks.N.normN.weight",
        "blocks.N.normN.bias", *(f"condition_embedder.time_embedder.linear_N.{kind}"
                                 for kind in ("weight", "bias")),
    }  # fmt: skip


def test_random_weights_depend_on_the_seed_alone(tmp_path, base):
    base.save_config(tmp_path)
    spec = {"config": str(tmp_path / "config.json"), "dtype": "float32", "family": "wan"}
    first = build_backbone(BackboneSpec(**spec)).state_dict()
    assert all(torch.equal(first[name], value) for name, value in base.state_dict().items())
    other = build_backbone(BackboneSpec(**spec, seed=1)).state_dict()
    assert not torch.equal(other["scale_shift_table"], first["scale_shift_table"])


@pytest.mark.parametrize(
    ("family", "hub_id", "width", "billions"),
    [
        ("wan", wan.WAN_1B_HUB_ID, 1536, 1.42),
        ("wan", wan.WAN_14B_HUB_ID, 5120, 14.29),
        ("wan_5b", wan.WAN_5B_HUB_ID, 3072, 5.00),
    ],
)
def test_published_sizes_are_known_without_weights(family, hub_id, width, billions):
    with torch.device("meta"):
        model = build_backbone(BackboneSpec(pretrained=hub_id, family=family))
        kind = {"wan": Wan, "wan_5b": Wan5B}[family](model)
    assert kind.width == width
    assert round(sum(math.prod(p.shape) for p in model.parameters()) / 1e9, 2) == billions


def test_what_a_checkpoint_says_of_the_backbone(base):
    assert Wan(base).sizes == {
        "family": "wan", "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 64,
        "text_dim": 64, "in_channels": 16,
    }  # fmt: skip


def test_one_noise_level_for_all_tokens_is_what_ti2v_means(make, base_5b, clip):
    """diffusers gives TI2V a level for each token, in text-to-video always the same."""
    latents = torch.cat([clip.latents] * 3, dim=1)
    levels = clip.timestep[:, None].expand(-1, 3 * 2 * 3)
    with torch.no_grad():
        theirs = base_5b(latents, levels, filled_up(clip.text), return_dict=False)[0]
        ours = make(model=base_5b)(latents, clip.text, clip.timestep, text_lengths=LENGTHS)
    assert ((ours + theirs).norm() / theirs.norm()).item() < 2e-6


@pytest.mark.parametrize("with_audio", [True, False])
def test_a_noise_level_per_frame_is_one_per_token_of_diffusers(base_5b, make, clip_5b, with_audio):
    """Bit for bit: a frame here has 2x3 tokens."""
    tokens = SimpleNamespace(
        **vars(clip_5b) | {"timestep": clip_5b.timestep.repeat_interleave(6, dim=1)}
    )
    with torch.no_grad():
        out = run(make(model=base_5b), clip_5b, audio=clip_5b.audio if with_audio else None)
    assert torch.equal(out, -bare(base_5b, tokens))


def test_a_given_frame_is_no_noise_to_the_model(make, base_5b, clip_5b):
    """With the level of its clip the same frame is something else."""
    model = make(model=base_5b)
    other = SimpleNamespace(**vars(clip_5b) | {"timestep": clip_5b.timestep[:, 1]})
    with torch.no_grad():
        given, without = run(model, clip_5b), run(model, other)
    assert (given - without)[0].abs().mean() > 1e-4
    torch.testing.assert_close(given[1], without[1], rtol=0, atol=1e-5)


def test_errors(tmp_path, base, make, clip):
    with pytest.raises(ValueError, match="do not cast the whole model, but load it in bf16"):
        run(make().to(torch.bfloat16), clip)
    with pytest.raises(ValueError, match="share_qkv_a is for fused layers, which wan does not"):
        make(lora=LoraSpec(rank=2, alpha=2.0, share_qkv_a=True))
    with pytest.raises(ValueError, match="modulations_on_host is for layers that wan does not"):
        make(modulations_on_host=True)
    model = make(lora=None)
    with pytest.raises(ValueError, match="latents of 5x6 cannot be cut into patches of 2x2"):
        model(torch.zeros(2, 16, 3, 5, 6), clip.text, clip.timestep, text_lengths=LENGTHS)
    long = pad(clip.text, (0, 0, 0, 500))
    with pytest.raises(ValueError, match="a text has 540 tokens, but the backbone reads 512; cut"):
        model(clip.latents, long, clip.timestep, text_lengths=(540, 3))
    with pytest.raises(ValueError, match="Wan cannot begin a clip with a picture; leave"):
        model(clip.latents, clip.text, torch.ones(2, 3), text_lengths=LENGTHS)
    said = r"a WanTransformer3DModel \(in_channels 36, num_layers 3\) is none that can be adapted"
    with pytest.raises(ValueError, match=said):
        make(model=small_wan.transformer(in_channels=36, out_channels=16))


def test_families_are_not_taken_for_each_other(tmp_path, base, small_parts):
    folders = {family: tmp_path / family for family in ("wan", "wan_5b")}
    base.save_pretrained(folders["wan"] / "transformer")
    small_wan.transformer(in_channels=48, out_channels=48).save_pretrained(
        folders["wan_5b"] / "transformer"
    )
    folders["mochi"] = small_parts
    for found, folder in folders.items():
        for asked in folders:
            spec = BackboneSpec(pretrained=str(folder), dtype="float32", family=asked)
            if asked == found:
                build_backbone(spec)
                continue
            with pytest.raises(ValueError, match=f"is no transformer of the family {asked}, but a "
                               rf"\w+ .*; set model.backbone.family to {found}"):  # fmt: skip
                build_backbone(spec)
    with pytest.raises(ValueError, match="no backbone 'ltx'; choose mochi, wan, wan_5b"):
        BackboneSpec(pretrained="a", family="ltx")


@pytest.mark.parametrize("sign", ["folder", "index"])
def test_checkpoints_with_two_experts_are_refused(tmp_path, base, sign):
    base.save_pretrained(tmp_path / "transformer")
    if sign == "folder":
        base.save_pretrained(tmp_path / "transformer_2")
    else:
        (tmp_path / "model_index.json").write_text('{"boundary_ratio": 0.875}')
    with pytest.raises(ValueError, match="has two transformers, one for high noise and one for"):
        build_backbone(BackboneSpec(pretrained=str(tmp_path), family="wan"))
