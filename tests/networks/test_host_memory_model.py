"""MusicModel with weights and inputs of its blocks in host memory: the same bits in less memory."""

from contextlib import nullcontext

import pytest
import torch

from musicinfuser.generation import SamplingSpec, sample_latents
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.memory.streaming import ALIGNMENT
from musicinfuser.networks.backbones import Mochi
from tests.networks.late_copies import copy_late
from tests.networks.watched_memory import WatchedMemory

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
CPU, NUM_BLOCKS = torch.device("cpu"), 3
POLICIES = ("none", "attention", "full")
IN_HOST_MEMORY = [
    {"stream_blocks": True},
    {"offload_inputs": True},
    {"stream_blocks": True, "offload_inputs": True, "modulations_on_host": True},
]


def step(model, clip, *, autocast=False):
    """Loss and gradients of a training step."""
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        out = model(
            clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=clip.text_lengths
        )
    loss = out.float().square().mean()
    model.zero_grad()
    loss.backward()
    return {"loss": loss.detach()} | {
        name: p.grad for name, p in model.named_parameters() if p.requires_grad
    }


def sample(model, clip, *, num_steps=2, num_frames=7):
    """Latents of a guided sampling, as `predict` runs it."""
    request = GenerationRequest(
        track="", prompt="", seed=5, num_frames=num_frames, height=32, width=48
    )
    with torch.inference_mode():
        return sample_latents(
            model, text=clip.text[0], negative=clip.text[0, :0], audio=clip.audio[:1],
            request=request, device=CPU,
            sampling=SamplingSpec(num_steps=num_steps, guidance_scale=3.0),
        )  # fmt: skip


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] is None) == (value is None), name
        assert value is None or torch.equal(found[name], value), name


def streamed_names(model):
    """Frozen parameters of the blocks, without those that run before them."""
    return {
        name
        for name, p in model.named_parameters()
        if not p.requires_grad
        and name.startswith("backbone.transformer_blocks.")
        and not name.split(".", 3)[3].startswith(Mochi.not_streamed)
    }


@pytest.mark.parametrize("autocast", [False, True])
def test_step_and_samples_are_equal_bit_for_bit(monkeypatch, make_model, randomise, clip, autocast):
    dtype = torch.bfloat16 if autocast else torch.float32

    def results(**settings):
        model = randomise(make_model(dtype=dtype, layers=[0, 1, 2], **settings))
        latents = None if autocast else sample(model, clip)
        # A training after a sampling, then a sampling after it.
        found = step(model, clip, autocast=autocast) | {"latents": latents}
        assert autocast or torch.equal(sample(model, clip), latents)
        return found

    resident = [results(gradient_checkpointing=policy) for policy in POLICIES]
    assert resident[0]["audio_projector.projection.0.weight"].any()
    for other in resident[1:]:
        assert_same(other, resident[0])
    for settings in IN_HOST_MEMORY:
        assert_same(results(gradient_checkpointing="full", **settings), resident[0])
    copy_late(monkeypatch)
    assert_same(results(gradient_checkpointing="full", **IN_HOST_MEMORY[-1]), resident[0])


def test_names_and_values_stay(make_model, clip):
    resident = make_model()
    model = make_model(gradient_checkpointing="full", **IN_HOST_MEMORY[-1])
    step(model, clip)
    mine, theirs = model.state_dict(), resident.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert model.trainable_names() == resident.trainable_names()
    with torch.no_grad():
        model.load_state_dict({name: 1.5 * value for name, value in theirs.items()})
        resident.load_state_dict({name: 1.5 * value for name, value in theirs.items()})
    assert torch.equal(sample(model, clip), sample(resident, clip))


def test_two_blocks_of_weights_are_on_the_device(make_model, clip):
    model = make_model(gradient_checkpointing="full", stream_blocks=True)
    names = streamed_names(model)
    assert names and {id(p) for p in model.streamed.parameters()} == {
        id(model.get_parameter(name)) for name in names
    }
    sizes = {}
    for name in names:
        index, size = int(name.split(".")[2]), model.get_parameter(name).nbytes
        sizes[index] = sizes.get(index, 0) + -(-size // ALIGNMENT) * ALIGNMENT
    with WatchedMemory(lambda tensor: tensor.dtype == torch.uint8) as sampling:
        sample(model, clip, num_steps=2)
    # Two passes in each of two steps, with text and without.
    assert sampling.copies == 4 * NUM_BLOCKS and sampling.peak == 2 * max(sizes.values())
    with WatchedMemory(lambda tensor: tensor.dtype == torch.uint8) as training:
        step(model, clip)
    assert training.copies == 2 * NUM_BLOCKS and training.peak == 0


def test_a_move_leaves_streamed_weights_where_they_are(make_model):
    model = make_model(gradient_checkpointing="full", **IN_HOST_MEMORY[-1])
    places = {p: p.data_ptr() for p in model.streamed.parameters()}
    met = []
    model._apply(lambda tensor: met.append(tensor.numel()) or tensor.clone())
    assert {p: p.data_ptr() for p in places} == places
    on_host = {m.layer.weight for b in model.backbone.transformer_blocks
               for m in (b.norm1, b.norm1_context)}  # fmt: skip
    moved = [p for p in model.parameters() if p not in places and p not in on_host]
    assert sorted(size for size in met if size) == sorted(p.numel() for p in moved)
    with pytest.raises(ValueError, match="float32 and cannot become torch.bfloat16"):
        model.to(torch.bfloat16)


def test_what_would_keep_all_weights_is_refused(make_model):
    for policy in ("none", "attention"):
        for settings in IN_HOST_MEMORY:
            with pytest.raises(ValueError, match=f"checkpointing is {policy}, set it to full"):
                make_model(gradient_checkpointing=policy, **settings)


def test_one_build_of_the_rotations_serves_a_sampling_run(make_model, clip):
    model = make_model()
    built = []
    model.backbone.rope.register_forward_hook(lambda *_: built.append(1))
    sample(model, clip, num_steps=4)
    assert len(built) == 1
    sample(model, clip, num_steps=1, num_frames=13)
    assert len(built) == 2, "another size"
    sample(model, clip, num_steps=1)
    step(model, clip)
    assert len(built) == 4, "one size is kept, and the clip's is another"
    with torch.no_grad():
        model.backbone.pos_frequencies.mul_(1.5)
    assert not torch.equal(step(model, clip)["loss"], step(make_model(), clip)["loss"])
    assert len(built) == 5, "other frequencies"
    assert not [name for name in model.state_dict() if "rotary" in name]


def test_frequencies_that_are_trained_get_their_gradient(make_model, clip):
    model = make_model().requires_grad_(True)
    for _ in range(2):
        step(model, clip)
        assert model.backbone.pos_frequencies.grad.any()
