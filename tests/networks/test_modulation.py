"""Modulations before the blocks: the same bits, whatever memory their weights are in."""

import copy
import mmap
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from musicinfuser.networks.modulation import (
    PrecomputedModulation,
    _in_own_pages,
    compute_modulations,
    modulation_layers,
)

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


def velocity(model, clip):
    with torch.no_grad():
        return model(
            clip.latents, clip.text, clip.timestep, None, clip.audio,
            text_lengths=clip.text_lengths,
        )  # fmt: skip


def weights(model):
    return {
        f"{i}.{j}": layer.weight
        for i, block in enumerate(model.backbone.transformer_blocks)
        for j, layer in enumerate(modulation_layers(block))
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_equal_diffusers_bit_for_bit(pristine_backbone, make_model, dtype):
    theirs = copy.deepcopy(pristine_backbone).to(dtype).transformer_blocks
    ours = make_model(dtype=dtype, lora=None).backbone.transformer_blocks
    stream = torch.Generator().manual_seed(0)
    temb, visual, text = (
        torch.randn(*shape, generator=stream).to(dtype)
        for shape in ((2, 128), (2, 5, 128), (2, 3, 96))
    )
    given = compute_modulations(ours, temb, text_dtype=dtype)
    assert [tuple(m.shape) for m in given[0]] == [(2, 512), (2, 384)]
    assert [tuple(m.shape) for m in given[-1]] == [(2, 512), (2, 96)]
    for mine, other, modulations in zip(ours, theirs, given, strict=True):
        for norm, x in (("norm1", visual), ("norm1_context", text)):
            found = getattr(mine, norm)(x, modulations)
            expected = getattr(other, norm)(x, temb)
            if torch.is_tensor(found):
                found, expected = (found,), (expected,)
            for a, b in zip(found, expected, strict=True):
                assert torch.equal(a, b) and a.dtype == b.dtype


def test_names_are_diffusers(pristine_backbone, make_model):
    model = make_model(lora=None)
    ours, theirs = model.backbone.state_dict(), pristine_backbone.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [name for name, _ in model.backbone.named_parameters()] == [
        name for name, _ in pristine_backbone.named_parameters()
    ]


@pytest.mark.parametrize("policy", ["none", "attention", "full"])
def test_they_are_computed_once_and_not_again_in_backward(make_model, clip, policy):
    for policy in ("none", "attention", "full"):
        model = make_model(gradient_checkpointing=policy)
        order = []
        for block in model.backbone.transformer_blocks:
            block.register_forward_pre_hook(lambda *_, ran=order.append: ran("block"))
            for layer in modulation_layers(block):
                layer.register_forward_hook(lambda *_, ran=order.append: ran("modulation"))
        out = model(clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=(10, 10))
        out.square().mean().backward()
        assert order == ["modulation"] * 6 + ["block"] * 3


def test_weights_on_the_host_stay_there(make_model, clip):
    resident, hosted = make_model(), make_model(modulations_on_host=True)
    assert torch.equal(velocity(hosted, clip), velocity(resident, clip))
    moved = copy.deepcopy(hosted).to("meta")
    held = weights(moved)
    assert len(held) == 6 and all(weight.device.type == "cpu" for weight in held.values())
    for name, weight in weights(hosted).items():
        assert torch.equal(held[name], weight)
    others = {n for n, p in moved.named_parameters() if p.device.type == "cpu"}
    assert others == {
        f"backbone.transformer_blocks.{n}.weight"
        for n in ("0.norm1.linear", "0.norm1_context.linear", "1.norm1.linear",
                  "1.norm1_context.linear", "2.norm1.linear", "2.norm1_context.linear_1")
    }  # fmt: skip
    assert hosted.state_dict().keys() == resident.state_dict().keys()
    assert all(p.device.type == "meta" for p in make_model().to("meta").parameters())
    with pytest.raises(ValueError, match="kept in host memory are torch.float32 and cannot"):
        hosted.to(torch.bfloat16)


def test_a_model_without_weights_gets_them_on_the_host(make_model):
    model = make_model(modulations_on_host=True)
    for module in model.backbone.modules():
        if isinstance(module, PrecomputedModulation):
            module.is_on_host = False
    model.to("meta")
    for module in model.backbone.modules():
        if isinstance(module, PrecomputedModulation):
            module.keep_on_host()
    assert all(weight.is_meta for weight in weights(model).values())
    model.to_empty(device="cpu")
    assert all(weight.device.type == "cpu" for weight in weights(model).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_copies_that_are_page_locked_begin_a_page_and_end_within_their_memory(dtype):
    original = torch.randn(37, 11).to(dtype)
    copied = _in_own_pages(original)
    assert torch.equal(copied, original) and copied.dtype == dtype
    assert copied.data_ptr() % mmap.PAGESIZE == 0
    pages = -(-copied.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = copied.untyped_storage()
    assert copied.data_ptr() + pages <= memory.data_ptr() + memory.nbytes()


class LiveOnMeta(TorchDispatchMode):
    """Bytes of copies to the meta device, which stands for a GPU, that are alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            for tensor in tree_leaves(out):
                self._follow(tensor.untyped_storage())
        return out

    def _follow(self, storage):
        size = storage.nbytes()
        self.now += size
        self.number += 1
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size):
        self.now -= size


def test_no_more_than_a_layer_is_on_the_device_at_once(make_model):
    model = make_model(modulations_on_host=True).to("meta")
    temb = torch.empty(2, 128, device="meta")
    with LiveOnMeta() as live:
        found = compute_modulations(
            model.backbone.transformer_blocks, temb, text_dtype=torch.float32
        )
    assert all(m.is_meta for pair in found for m in pair)
    sizes = [weight.nbytes for weight in weights(model).values()]
    assert live.number == len(sizes) and live.most == max(sizes) and live.now == 0


@pytest.mark.gpu
def test_on_a_gpu_as_on_a_gpu(make_model, clip):
    """Copied from page-locked memory, the numbers are those of weights that were there."""
    clip = copy.deepcopy(clip)
    for name in ("latents", "text", "timestep", "audio"):
        setattr(clip, name, getattr(clip, name).cuda())
    resident, hosted = make_model().cuda(), make_model(modulations_on_host=True).cuda()
    assert {weight.device.type for weight in weights(hosted).values()} == {"cpu"}
    assert torch.equal(velocity(hosted, clip), velocity(resident, clip))
    assert all(weight.data.is_pinned() for weight in weights(hosted).values())
    of_block = max(sum(x.weight.nbytes for x in modulation_layers(b))
                   for b in hosted.backbone.transformer_blocks)  # fmt: skip
    temb = torch.randn(2, 128, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = compute_modulations(hosted.backbone.transformer_blocks, temb, text_dtype=torch.float32)
    kept = sum(m.nbytes for pair in found for m in pair)
    assert torch.cuda.max_memory_allocated() - before <= 2 * of_block + kept + 2**20
