"""A backbone in 8 bits: close to what it was, with exact ways to save memory on top."""

import copy
from typing import Any

import pytest
import torch

from musicinfuser.errors import UserError
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.quantised import held_bytes, is_quantised
from musicinfuser.networks.zica import ZicaSpec
from preflight.memory import frozen_bytes
from preflight.profiles import bytes_saved
from tests import small_wan
from tests.adapted import with_memory, with_trained_values

pytest.importorskip("torchao")
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
# Of the norm of outputs and gradients, in bf16, over three blocks; a weight is off by half a step
# of its row's scale (int8), or by 1/16 of itself (three bits of mantissa in fp8).
LIMITS = {"int8": 0.04, "fp8": 0.1}


@pytest.fixture(scope="session")
def wan_parts(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("parts")
    small_wan.transformer().save_pretrained(folder / "transformer")
    return str(folder)


@pytest.fixture
def build(small_parts, wan_parts) -> Any:
    """``build(family, quantize, **changes)``: an adapted model in bf16, nothing in it zero."""

    def made(family: str, quantize: str | None, **changes: Any) -> MusicModel:
        source = {"mochi": str(small_parts), "wan": wan_parts}[family]
        spec = BackboneSpec(pretrained=source, family=family, quantize=quantize)
        options: dict[str, Any] = {
            "layers": [0, 2], "zica": ZicaSpec(num_heads=4), "audio_width": 96,
            "lora": LoraSpec(rank=2, alpha=2.0),
        }  # fmt: skip
        model = MusicModel(build_backbone(spec), **with_memory(options | changes))
        return with_trained_values(model, seed=3)

    return made


def step(model: MusicModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Velocity and gradients of one batch under autocast."""
    stream = torch.Generator().manual_seed(0)
    config = model.backbone.config
    latents = torch.randn(2, config.in_channels, 3, 4, 6, generator=stream)
    text = torch.randn(2, 10, 64, generator=stream)
    audio = torch.randn(2, 20, 96, generator=stream)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(
            latents, text, torch.tensor([310.0, 870.0]), None, audio, text_lengths=(7, 10)
        )
    found.float().square().mean().backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
    return found.detach().float(), torch.cat(grads)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("quantize", LIMITS)
@pytest.mark.parametrize("family", ["mochi", "wan"])
def test_outputs_and_gradients_stay_close(build, family, quantize) -> None:
    plain, model = build(family, None), build(family, quantize)
    velocity, grads = step(model)
    expected, expected_grads = step(plain)
    assert torch.isfinite(grads).all()
    assert 0 < distance(velocity, expected) < LIMITS[quantize]
    assert 0 < distance(grads, expected_grads) < LIMITS[quantize]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert not any(map(is_quantised_itself, trained))
    # Blocks' linear layers hold half, with their scales a little more.
    assert is_quantised(model.backbone) and not is_quantised(plain.backbone)
    assert 0.45 < block_bytes(model) / block_bytes(plain) < 0.6


def is_quantised_itself(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, "__tensor_flatten__")


def block_bytes(model: MusicModel) -> int:
    leave = model.kind.not_streamed
    return sum(
        held_bytes(p)
        for block in model.kind.blocks
        for name, p in block.named_parameters()
        if not p.requires_grad and p.dim() == 2 and not name.startswith(leave or "-")
    )


@pytest.mark.parametrize("quantize", LIMITS)
def test_each_weight_is_within_the_librarys_error(build, quantize) -> None:
    plain, model = build("mochi", None), build("mochi", quantize)
    for name in ("attn1.to_q", "ff.net.2"):
        exact, layer = (m.kind.blocks[1].get_submodule(name) for m in (plain, model))
        exact, found = exact.weight.float(), layer.weight.dequantize().float()
        largest = exact.abs().amax(dim=1, keepdim=True)
        # Beside it the rounding of what is multiplied to bf16.
        step = largest / 254 if quantize == "int8" else exact.abs() / 16 + largest / 448 / 16
        assert ((found - exact).abs() <= 1.05 * step + largest / 256).all()


@pytest.mark.parametrize("family", ["mochi", "wan"])
def test_ways_to_save_memory_change_no_bit(build, family) -> None:
    found = {
        name: step(build(family, "int8", **ways))
        for name, ways in {
            "none": {"gradient_checkpointing": "none"},
            "attention": {"gradient_checkpointing": "attention"},
            "full": {
                "gradient_checkpointing": "full", "offload_inputs": True,
                "modulations_on_host": family == "mochi",
            },
        }.items()
    }  # fmt: skip
    for name, tensors in found.items():
        assert all(map(torch.equal, tensors, found["none"])), name


def test_counted_without_weights(build, small_parts) -> None:
    """What `check` builds; and copies, as EMA and tests make them."""
    spec = BackboneSpec(pretrained=str(small_parts), quantize="int8")
    with torch.device("meta"):
        skeleton = build_backbone(spec)
    real = build_backbone(spec)
    assert frozen_bytes(skeleton) == frozen_bytes(real) == frozen_bytes(copy.deepcopy(real))
    assert frozen_bytes(real) < frozen_bytes(build_backbone(BackboneSpec(str(small_parts))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream_blocks": True, "gradient_checkpointing": "full"}, "memory.stream_blocks in the"),
        ({"lora": LoraSpec(rank=2, alpha=2.0, dora=True)}, "lora.dora measures the rows"),
    ],
)
def test_what_cannot_be_beside_it(build, changes, message) -> None:
    with pytest.raises(UserError, match=message):
        build("mochi", "int8", **changes)
    with pytest.raises(UserError, match="model.backbone.quantize is 'int3'; set it to int8, fp8"):
        build("mochi", "int3")


@pytest.mark.parametrize("quantize", LIMITS)
@pytest.mark.parametrize("family", ["mochi", "wan"])
def test_what_is_saved_is_known_before(build, family, quantize) -> None:
    plain, model = build(family, None), build(family, quantize)
    assert frozen_bytes(plain) - frozen_bytes(model) == bytes_saved(plain, quantize) > 0
