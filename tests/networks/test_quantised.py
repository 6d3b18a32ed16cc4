"""A backbone in few bits: close to what it was, with exact ways to save memory on top."""

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

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
# Of the norm of outputs and gradients, in bf16, over three blocks; a weight is off by half a step
# of its row's scale (int8), by 1/16 of itself (three bits of mantissa in fp8), or by half a step of
# the 16 numbers of its block (nf4).
LIMITS = {"int8": 0.04, "fp8": 0.1, "nf4": 0.1}
# Of the bytes in bf16, with scales; some layers of the small Mochi are not in nf4.
SHARES = {"int8": (0.45, 0.6), "fp8": (0.45, 0.6), "nf4": (0.28, 0.57)}


@pytest.fixture(params=LIMITS)
def quantize(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("bitsandbytes" if request.param == "nf4" else "torchao")
    return request.param


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


def velocity_of(model: MusicModel) -> torch.Tensor:
    """Of one batch under autocast."""
    stream = torch.Generator().manual_seed(0)
    config = model.backbone.config
    latents = torch.randn(2, config.in_channels, 3, 4, 6, generator=stream)
    text = torch.randn(2, 10, 64, generator=stream)
    audio = torch.randn(2, 20, 96, generator=stream)
    with torch.autocast("cpu", torch.bfloat16):
        return model(latents, text, torch.tensor([310.0, 870.0]), None, audio, text_lengths=(7, 10))


def step(model: MusicModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Velocity and gradients of one batch."""
    found = velocity_of(model)
    found.float().square().mean().backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
    return found.detach().float(), torch.cat(grads)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


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
    assert is_quantised(model.backbone) and not is_quantised(plain.backbone)
    least, most = SHARES[quantize]
    assert least < block_bytes(model) / block_bytes(plain) < most


def is_quantised_itself(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, "__tensor_flatten__") or hasattr(parameter, "quant_state")


def block_bytes(model: MusicModel) -> int:
    leave = model.kind.not_streamed
    return sum(
        held_bytes(p)
        for block in model.kind.blocks
        for name, p in block.named_parameters()
        if not p.requires_grad and p.dim() == 2 and not name.startswith(leave or "-")
    )


@pytest.mark.parametrize("quantize", ["int8", "fp8"], indirect=True)
def test_each_weight_is_within_the_librarys_error(build, quantize) -> None:
    plain, model = build("mochi", None), build("mochi", quantize)
    for name in ("attn1.to_q", "ff.net.2"):
        exact, layer = (m.kind.blocks[1].get_submodule(name) for m in (plain, model))
        exact, found = exact.weight.float(), layer.weight.dequantize().float()
        largest = exact.abs().amax(dim=1, keepdim=True)
        # Beside it the rounding of what is multiplied to bf16.
        step = largest / 254 if quantize == "int8" else exact.abs() / 16 + largest / 448 / 16
        assert ((found - exact).abs() <= 1.05 * step + largest / 256).all()


def dequantised(layer: torch.nn.Linear) -> torch.Tensor:
    """The weights of one of bitsandbytes' layers, by itself."""
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def nf4_layers(model: MusicModel) -> dict[str, torch.nn.Linear]:
    return {n: m for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"}


@pytest.mark.parametrize("family", ["mochi", "wan"])
def test_nf4_is_bitsandbytes_own_weights_in_linear_layers(build, family) -> None:
    """Nearly equal to a model of plain layers with them; and those within nf4 of what was.

    Layers of the small Mochi with rows of 96 or 341 stay as they are: on the CPU the library does
    not give back what it was given of the former.
    """
    pytest.importorskip("bitsandbytes")
    plain, model = build(family, None), build(family, "nf4")
    layers = nf4_layers(model)
    leave = model.kind.not_streamed
    expected = {
        f"{prefix}.{name}"
        for prefix, block in plain.named_modules()
        if block in list(plain.kind.blocks)
        for name, layer in block.named_modules()
        if isinstance(layer, torch.nn.Linear) and "lora" not in name
        and not name.startswith(leave or "-") and layer.in_features % 64 == 0
    }  # fmt: skip
    assert layers.keys() == expected
    for name, layer in layers.items():
        exact = plain.get_submodule(name)
        found = dequantised(layer)
        blocks = exact.weight.detach().float().reshape(-1, 64)
        # The widest gap between nf4's 16 numbers, -1 and -0.696, and a rounding to bf16.
        most = (0.5 * (1 - 0.6961928) + 2**-8) * blocks.abs().amax(dim=1, keepdim=True)
        assert ((found.float().reshape(-1, 64) - blocks).abs() <= most).all()
        assert layer.bias is None or torch.equal(layer.bias, exact.bias)
        exact.weight.data = found.to(exact.weight.dtype)
    for found, expected in zip(step(model), step(plain), strict=True):
        assert distance(found, expected) < 0.003


def test_nf4_is_what_diffusers_makes(build, small_parts, monkeypatch) -> None:
    """On the CPU, of which its ``from_pretrained`` would say that a GPU is needed."""
    pytest.importorskip("bitsandbytes")
    from diffusers import BitsAndBytesConfig, MochiTransformer3DModel
    from diffusers.quantizers.bitsandbytes import BnB4BitDiffusersQuantizer

    monkeypatch.setattr(BnB4BitDiffusersQuantizer, "validate_environment", lambda *_, **__: None)
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    theirs = MochiTransformer3DModel.from_pretrained(
        small_parts / "transformer", quantization_config=config, torch_dtype=torch.bfloat16,
        device_map={"": "cpu"},
    )  # fmt: skip
    for name, layer in nf4_layers(build("mochi", "nf4", lora=None)).items():
        their = theirs.get_submodule(name.removeprefix("backbone."))
        assert torch.equal(layer.weight.data, their.weight.data)
        assert torch.equal(layer.weight.quant_state.absmax, their.weight.quant_state.absmax)
        assert layer.compute_dtype == their.compute_dtype


def test_nf4_has_gradients_after_it_was_evaluated(build) -> None:
    """In which bitsandbytes packs weights anew on some CPUs, whose products have no gradient."""
    pytest.importorskip("bitsandbytes")
    model = build("wan", "nf4")
    _, expected = step(model)
    model.zero_grad()
    with torch.no_grad():
        velocity_of(model.eval())
    _, found = step(model.train())
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["mochi", "wan"])
def test_ways_to_save_memory_change_no_bit(build, family, quantize) -> None:
    found = {
        name: step(build(family, quantize, **ways))
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


def test_counted_without_weights(build, small_parts, quantize) -> None:
    """What `check` builds; and copies, as EMA and tests make them."""
    spec = BackboneSpec(pretrained=str(small_parts), quantize=quantize)
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
def test_what_cannot_be_beside_it(build, changes, message, quantize) -> None:
    with pytest.raises(UserError, match=message):
        build("mochi", quantize, **changes)
    sentence = "model.backbone.quantize is 'int3'; set it to int8, fp8, nf4"
    with pytest.raises(UserError, match=sentence):
        build("mochi", "int3")


@pytest.mark.parametrize("family", ["mochi", "wan"])
def test_what_is_saved_is_known_before(build, family, quantize) -> None:
    plain, model = build(family, None), build(family, quantize)
    assert frozen_bytes(plain) - frozen_bytes(model) == bytes_saved(plain, quantize) > 0
