"""LoRA on other layers, of several ranks and as DoRA: trained, shared, and read by others."""

import copy
from typing import Any

import pytest
import torch
from diffusers import MochiPipeline, WanPipeline
from peft import PeftModel

from musicinfuser.adapters.folder import read_folder
from musicinfuser.adapters.initial import load_adapter
from musicinfuser.errors import UserError
from musicinfuser.networks.lora import LoraSpec, add_lora
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests import small_wan
from tests.adapted import with_memory, with_trained_values
from tests.sharing.test_folder import settings, share

BOTH = ("attention", "feed_forward")
REACHES = {
    "feed-forward": LoraSpec(rank=2, alpha=3.0, targets=("feed_forward",)),
    "ranks": LoraSpec(
        rank=2, alpha=3.0, targets=BOTH, ranks={"attention": 4, "text": 1, "to_q": 5}
    ),
    "DoRA": LoraSpec(rank=2, alpha=3.0, targets=BOTH, dora=True),
    "DoRA of several ranks": LoraSpec(rank=2, alpha=2.0, ranks={"text": 3}, dora=True),
}
FAMILIES = {"mochi": (MochiPipeline, "transformer_blocks"), "wan": (WanPipeline, "blocks")}


@pytest.fixture
def base(pristine_backbone) -> Any:
    def of(family: str) -> Any:
        return copy.deepcopy(pristine_backbone) if family == "mochi" else small_wan.transformer()

    return of


def adapted(backbone: Any, lora: LoraSpec) -> MusicModel:
    options = {"layers": [0, 2], "zica": ZicaSpec(num_heads=4), "lora": lora, "audio_width": 96}
    return MusicModel(backbone, **with_memory(options | {"audio_resampling": "centre"}))


def velocity(model: Any, clip: Any, family: str) -> torch.Tensor:
    """Of the bare backbone and of the adapted one alike, without audio."""
    stream = torch.Generator().manual_seed(1)
    channels = 12 if family == "mochi" else 16
    latents = torch.randn(2, channels, 3, 4, 6, generator=stream)
    with torch.no_grad():
        if isinstance(model, MusicModel):
            return model(latents, clip.text, clip.timestep, clip.text_mask, None)
        if family == "mochi":
            return model(latents, clip.text, clip.timestep, clip.text_mask)[0]
        text = torch.zeros(2, 512, 64)
        text[0, :7], text[1, :10] = clip.text[0, :7], clip.text[1]
        return -model(latents, clip.timestep, text)[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("reach", REACHES)
def test_diffusers_peft_and_this_program_read_it(reach, family, base, clip, tmp_path) -> None:
    lora, (pipeline, _) = REACHES[reach], FAMILIES[family]
    model = with_trained_values(adapted(base(family), lora), seed=3)
    adapter = share(model, tmp_path / "a")
    expected, bare = velocity(model, clip, family), velocity(base(family), clip, family)
    assert (expected - bare).abs().max() > 0.01

    again = adapted(base(family), lora)
    load_adapter(tmp_path / "a", again, settings(again))
    assert torch.equal(velocity(again, clip, family), expected)
    assert read_folder(tmp_path / "a").settings.lora == lora
    assert adapter.settings.lora == lora

    transformer = base(family)
    parts = dict.fromkeys(("tokenizer", "text_encoder", "vae", "scheduler"))
    pipe = pipeline(transformer=transformer, **parts)
    pipe.load_lora_weights(tmp_path / "a")
    torch.testing.assert_close(velocity(transformer, clip, family), expected, rtol=1e-4, atol=1e-5)

    plain = PeftModel.from_pretrained(base(family), tmp_path / "a")
    found = velocity(plain.base_model.model, clip, family)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_ranks_and_factors(family, base) -> None:
    """One factor, alpha / rank, whatever the rank; a name of a layer counts before what it is."""
    backbone, lora = base(family), REACHES["ranks"]
    names = add_lora(backbone, lora)
    block = getattr(backbone, FAMILIES[family][1])[0]
    text = block.attn1.add_k_proj if family == "mochi" else block.attn2.to_k
    feed_forward = block.ff.net[2] if family == "mochi" else block.ffn.net[2]
    found = [layer.r["default"] for layer in (block.attn1.to_q, block.attn1.to_k, text)]
    assert [*found, feed_forward.r["default"]] == [5, 4, 1, 2]
    layers = [module for module in backbone.modules() if hasattr(module, "lora_A")]
    assert {layer.scaling["default"] for layer in layers} == {1.5}
    assert len(names) == 2 * len(layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_dora_starts_at_the_backbone_and_learns_lengths(family, base, clip) -> None:
    bare, model = base(family), adapted(base(family), REACHES["DoRA"])
    torch.testing.assert_close(
        velocity(model, clip, family), velocity(bare, clip, family), rtol=1e-4, atol=1e-5
    )
    stream = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 12 if family == "mochi" else 16, 3, 4, 6, generator=stream)
    model(latents, clip.text, clip.timestep, clip.text_mask, None).square().mean().backward()
    lengths = {n: p for n, p in model.named_parameters() if "magnitude" in n}
    assert lengths and all(p.requires_grad and p.grad is not None for p in lengths.values())
    # Of Mochi's last block the text ends unread.
    assert sum(bool(p.grad.any()) for p in lengths.values()) > 0.7 * len(lengths)
    with pytest.raises(UserError, match="scale must be 1: this adapter is a DoRA"):
        model(latents, clip.text, clip.timestep, clip.text_mask, None, lora_scale=0.5)


def test_without_anything_new_it_is_stored_as_before() -> None:
    plain = LoraSpec(rank=2, alpha=3.0)
    assert plain.stored() == {"rank": 2, "alpha": 3.0, "streams": "both", "share_qkv_a": False}
    assert plain.is_authors and not REACHES["DoRA"].is_authors
    assert LoraSpec(**REACHES["ranks"].stored()) == REACHES["ranks"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ()}, "lora.targets must be"),
        ({"targets": ("mlp",)}, "lora.targets must be .* not .mlp"),
        ({"ranks": {"text": 0}}, "lora.ranks.text is 0"),
        ({"ranks": {"feed_forward": 2}}, "no adapted layer of mochi is called so"),
        ({"ranks": {"to_q(": 2}}, "which is no pattern"),
        ({"dora": True, "share_qkv_a": True}, "lora.share_qkv_a shares one A"),
    ],
)
def test_what_is_refused(options, message, base) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        add_lora(base("mochi"), LoraSpec(rank=2, alpha=2.0, **options))
