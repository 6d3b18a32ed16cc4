"""A few small Mochi blocks with LoRA and ZICA, run in every way that blocks can be run."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from diffusers import MochiTransformer3DModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from musicinfuser.memory.host_memory import kept_on_cpu
from musicinfuser.memory.offloaded_checkpointing import OffloadedPass
from musicinfuser.memory.streaming import StreamedBlocks
from musicinfuser.networks.attention import JointAttention
from musicinfuser.networks.audio_projector import AudioProjector
from musicinfuser.networks.backbone import initialise_randomly
from musicinfuser.networks.lora import LoraSpec, add_lora
from musicinfuser.networks.zica import ZicaSpec, build_zica

HEADS, TEXT_WIDTH, AUDIO_WIDTH = 2, 48, 24
HEAD_WIDTH = 32
LORA = LoraSpec(rank=2, alpha=2.0)


class ListeningBlocks(nn.Module):
    """Frozen blocks, trained adapters with values as after training; some blocks hear audio."""

    def __init__(
        self,
        *,
        num_blocks: int = 5,
        head_width: int = HEAD_WIDTH,
        layers: tuple[int, ...] = (0, 2, 4),
        lora: LoraSpec | None = LORA,
        dtype: torch.dtype = torch.float32,
        streamed: bool = False,
        offload_inputs: bool = False,
        ahead: int = 1,
    ) -> None:
        super().__init__()
        backbone = MochiTransformer3DModel(
            num_attention_heads=HEADS,
            attention_head_dim=head_width,
            num_layers=num_blocks,
            pooled_projection_dim=TEXT_WIDTH,
            text_embed_dim=16,
            time_embed_dim=16,
        )
        initialise_randomly(backbone, seed=0)
        for parameter in backbone.requires_grad_(False).parameters():
            parameter.data = parameter.data.to(dtype)
        for block in backbone.transformer_blocks:
            block.attn1.processor = JointAttention()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            trained = add_lora(backbone, lora) if lora else set()
            width = HEADS * head_width
            self.zica = build_zica(width, ZicaSpec(num_heads=2), layers)
            self.projector = AudioProjector(AUDIO_WIDTH, width, "nearest")
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in trained)
        self.blocks = backbone.transformer_blocks
        stream = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            if parameter.requires_grad:
                noise = 0.05 * torch.randn(parameter.shape, generator=stream)
                parameter.data = parameter.data.float() + noise
        self.weights = StreamedBlocks(self.blocks, ahead=ahead) if streamed else None
        self.offload_inputs = offload_inputs
        self.compiled: Callable | None = None

    def _apply(self, fn: Callable, recurse: bool = True) -> "ListeningBlocks":
        with kept_on_cpu(self.weights.parameters() if self.weights else ()):
            return super()._apply(fn, recurse)

    def trained(self, index: int) -> list[nn.Parameter]:
        modules = [self.blocks[index]]
        if str(index) in self.zica:
            modules.append(self.zica[str(index)])
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    def forward(self, clip: SimpleNamespace, *, policy: str = "none") -> torch.Tensor:
        """``(B, N, D)``; blocks are run by a pass if anything is in host memory."""
        in_host_memory = self.weights is not None or self.offload_inputs
        through = None
        if in_host_memory or policy == "pass":
            through = OffloadedPass(
                len(self.blocks), weights=self.weights, offload_inputs=self.offload_inputs
            )
        visual, text = clip.visual, clip.text
        audio = self.projector(clip.audio, 3)

        def block(index, visual, text, audio):
            # One sum per block of what arrives at the audio tokens, however blocks are run.
            audio = None if audio is None else audio.view_as(audio)
            run = self.compiled or run_block
            zica = self.zica[str(index)] if str(index) in self.zica else None
            return run(self.blocks[index], zica, visual, text, audio, clip)

        for index in range(len(self.blocks)):
            if through is not None:
                visual, text = through.run(
                    index,
                    lambda *inputs, index=index: block(index, *inputs),
                    (visual, text, audio if str(index) in self.zica else None),
                    self.trained(index),
                )
            elif policy == "torch":
                visual, text = checkpoint(block, index, visual, text, audio, use_reentrant=False)
            else:
                visual, text = block(index, visual, text, audio)
        return visual


def run_block(block, zica, visual, text, audio, clip):
    visual, text = block(visual, text, clip.temb, clip.mask, clip.rotary)
    return (visual if zica is None else zica(visual, audio)), text


def make_clip(
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    head_width: int = HEAD_WIDTH,
    num_tokens: int = 18,
) -> SimpleNamespace:
    """Two clips of 3 latent frames, with captions of 4 and 7 tokens."""
    width = HEADS * head_width
    stream = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=stream)

    angles = normal(num_tokens, HEADS, head_width // 2)
    return SimpleNamespace(
        visual=normal(2, num_tokens, width).to(dtype),
        text=normal(2, 7, TEXT_WIDTH).to(dtype),
        temb=normal(2, width).to(dtype),
        mask=torch.arange(7) < torch.tensor([[4], [7]]),
        rotary=(angles.cos(), angles.sin()),
        audio=normal(2, 20, AUDIO_WIDTH),
    )


def move_clip(clip: SimpleNamespace, device: str) -> SimpleNamespace:
    def move(value):
        return tuple(map(move, value)) if isinstance(value, tuple) else value.to(device)

    return SimpleNamespace(**{name: move(value) for name, value in vars(clip).items()})


def outputs_and_gradients(
    model: ListeningBlocks, clips, *, policy="none", autocast=False, device="cpu"
):
    """Outputs of each clip, and the gradients after a backward pass for each."""
    outputs = []
    for clip in clips:
        region = torch.autocast(device, torch.bfloat16) if autocast else nullcontext()
        with region:
            outputs.append(model(clip, policy=policy))
        outputs[-1].float().square().mean().backward()
    return (
        [output.detach() for output in outputs],
        {name: p.grad for name, p in model.named_parameters() if p.requires_grad},
    )


def assert_same(found, expected) -> None:
    for mine, theirs in zip(found[0], expected[0], strict=True):
        assert torch.equal(mine, theirs)
    assert found[1].keys() == expected[1].keys()
    for name in expected[1]:
        mine, theirs = found[1][name], expected[1][name]
        assert (mine is None) == (theirs is None), name
        assert mine is None or torch.equal(mine, theirs), name
