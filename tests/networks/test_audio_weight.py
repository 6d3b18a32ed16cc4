"""A sample whose audio counts nothing is as one without audio, beside any others in its batch."""

import pytest
import torch

from musicinfuser.networks.backbones.mochi_block import compiled_run
from musicinfuser.networks.zica import ZicaSpec

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
HELD = {"gradient_checkpointing": "full"}
WAYS = {
    **{p: {"gradient_checkpointing": p} for p in ("none", "attention", "self_attention", "full")},
    "offloaded inputs": HELD | {"offload_inputs": True},
    "streamed blocks": HELD | {"stream_blocks": True, "modulations_on_host": True},
    "all in host memory": HELD
    | {"stream_blocks": True, "modulations_on_host": True, "offload_inputs": True},
}
HEARD = (True, False, True)
LENGTHS = (7, 4, 0)


@pytest.fixture
def three():
    """Latents, text, timesteps and audio of three samples, and what their outputs count."""
    stream = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(*shape, generator=stream)

    timestep = torch.tensor([310.0, 870.5, 40.0])
    return normal(3, 12, 3, 4, 6), normal(3, 7, 64), timestep, normal(3, 20, 96)


def passed(model, three, samples, lengths, **options):
    """Outputs of some samples; their audio is the last of the inputs."""
    latents, text, timestep, audio = (t[samples] for t in three)
    if options.pop("is_silent", False):
        audio = None
    text = text[:, : max(lengths)]
    out = model(latents, text, timestep, None, audio, text_lengths=lengths, **options)
    out.float().square().mean(dim=(1, 2, 3, 4)).sum().backward()
    return out.detach()


def gradients(model):
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def one_by_one(model, three):
    outputs = [
        passed(model, three, slice(i, i + 1), (LENGTHS[i],), is_silent=not heard)
        for i, heard in enumerate(HEARD)
    ]
    return torch.cat(outputs), gradients(model)


def assert_alike(found, expected, *, tolerance):
    assert relative(found[0], expected[0]) < 1e-6
    for name, gradient in expected[1].items():
        assert found[1][name].isfinite().all(), name
        # A bias of all keys changes no attention: its gradient is rounding alone.
        if gradient.norm() > 1e-6 and not name.endswith("to_k.bias"):
            assert relative(found[1][name], gradient) < tolerance, name


@pytest.mark.parametrize("form", ["cross_attention", "feature_addition"])
@pytest.mark.parametrize("way", WAYS)
def test_the_middle_one_of_three_does_not_listen(make_model, randomise, three, form, way):
    zica = ZicaSpec(form=form, num_heads=4)
    expected = one_by_one(randomise(make_model(zica=zica)), three)
    model = randomise(make_model(zica=zica, **WAYS[way]))
    weight = torch.tensor(HEARD).float()
    found = passed(model, three, slice(None), LENGTHS, audio_weight=weight), gradients(model)
    assert_alike(found, expected, tolerance=1e-5)
    model.zero_grad()
    assert relative(passed(model, three, slice(None), LENGTHS)[1], expected[0][1]) > 1e-3


def test_compiled_blocks_take_the_weights_too(make_model, randomise, three):
    """A graph for each kind of block: which samples listen, none looks at."""
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    expected = one_by_one(randomise(make_model(layers=[0, 1, 2])), three)
    model = randomise(make_model(layers=[0, 1, 2], compile_blocks=True))
    model.set_block_run(compiled_run(backend=count))
    weight = torch.tensor(HEARD).float()
    found = passed(model, three, slice(None), LENGTHS, audio_weight=weight), gradients(model)
    assert_alike(found, expected, tolerance=1e-5)
    passed(model, three, slice(None), LENGTHS, audio_weight=1 - weight)
    torch._dynamo.reset()
    assert len(graphs) == 2


def test_full_weights_leave_every_bit(make_model, randomise, three):
    model = randomise(make_model())
    plain = passed(model, three, slice(None), LENGTHS), gradients(model)
    again = randomise(make_model())
    ones = torch.ones(3)
    weighted = passed(again, three, slice(None), LENGTHS, audio_weight=ones), gradients(again)
    assert torch.equal(weighted[0], plain[0])
    assert all(torch.equal(weighted[1][name], plain[1][name]) for name in plain[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_without_any_music_still_uses_every_parameter(make_model, randomise, three, dtype):
    """DDP waits for the gradients of all; those of the audio are zeros, and no number is lost."""
    model = randomise(make_model(dtype=dtype))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = passed(model, three, slice(None), (0, 0, 0), audio_weight=torch.zeros(3))
        with torch.no_grad():
            silent = model(
                three[0], three[1][:, :0], three[2], None, None, text_lengths=(0, 0, 0)
            )  # fmt: skip
    assert torch.equal(found, silent)
    for name, gradient in gradients(model).items():
        assert gradient is not None and gradient.isfinite().all(), name
        if not name.startswith("backbone."):
            assert not gradient.any(), name
