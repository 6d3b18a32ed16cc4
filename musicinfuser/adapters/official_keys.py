"""The names of the authors' files against ours: Genmo's backbone, and the authors' adapters.

One key map serves both directions and any depth. Where the formats differ: q, k and v are fused;
the SwiGLU halves and the final layer's scale and shift are swapped; LoRA shares one A for q, k, v.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from musicinfuser.errors import UserError
from musicinfuser.networks.lora import ADAPTER_NAME

_STREAMS = {
    "x": (("to_q", "to_k", "to_v"), "to_out.0"),
    "y": (("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out"),
}


@dataclass(frozen=True)
class KeyRule:
    """One official tensor and the tensors of ours it holds.

    ``copy``: the same; ``stack``: ours concatenated along the rows; ``swap``: the two halves of
    the rows exchanged; ``share``: the same tensor stands for each of ours.
    """

    official: str
    ours: tuple[str, ...]
    kind: Literal["copy", "stack", "swap", "share"] = "copy"

    def split(self, tensor: Tensor, *, has_own_a: bool = False) -> tuple[Tensor, ...]:
        """The official tensor as ours, in the order of their names; views where it can be."""
        if self.kind == "swap":
            return (torch.cat(tensor.chunk(2)[::-1]),)
        if self.kind == "share" and not has_own_a:
            return (tensor,) * 3
        pieces = tensor.chunk(len(self.ours))
        if self.kind == "stack" and has_own_a:
            columns = tensor.shape[1] // 3
            pieces = tuple(p[:, i * columns : (i + 1) * columns] for i, p in enumerate(pieces))
            if not torch.equal(torch.block_diag(*pieces), tensor):
                raise UserError(
                    f"{self.official} has three times the rank of the output projections but is "
                    "not block-diagonal; LoRA of different rank on qkv and output is not supported."
                )
        return pieces


def backbone_rules(depth: int) -> Iterator[KeyRule]:
    """Genmo's names against diffusers', for a backbone of ``depth`` blocks."""
    yield KeyRule("pos_frequencies", ("pos_frequencies",))
    plain = {
        "x_embedder.proj": "patch_embed.proj",
        "t_embedder.mlp.0": "time_embed.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "time_embed.timestep_embedder.linear_2",
        "t5_y_embedder.to_kv": "time_embed.pooler.to_kv",
        "t5_y_embedder.to_q": "time_embed.pooler.to_q",
        "t5_y_embedder.to_out": "time_embed.pooler.to_out",
        "t5_yproj": "time_embed.caption_proj",
        "final_layer.linear": "proj_out",
    }
    for official, ours in plain.items():
        yield from _linear(official, ours)
    yield from _linear("final_layer.mod", "norm_out.linear", kind="swap")
    for i in range(depth):
        yield from _block_rules(i, is_last=i == depth - 1)


def _block_rules(index: int, *, is_last: bool) -> Iterator[KeyRule]:
    official, ours = f"blocks.{index}", f"transformer_blocks.{index}"
    text_modulation = "norm1_context.linear_1" if is_last else "norm1_context.linear"
    yield from _linear(f"{official}.mod_x", f"{ours}.norm1.linear")
    yield from _linear(f"{official}.mod_y", f"{ours}.{text_modulation}")
    for stream, (projections, out) in _STREAMS.items():
        yield KeyRule(
            f"{official}.attn.qkv_{stream}.weight",
            tuple(f"{ours}.attn1.{name}.weight" for name in projections),
            "stack",
        )
        norms = {"x": ("norm_q", "norm_k"), "y": ("norm_added_q", "norm_added_k")}[stream]
        for letter, norm in zip("qk", norms, strict=True):
            name = f"{official}.attn.{letter}_norm_{stream}.weight"
            yield KeyRule(name, (f"{ours}.attn1.{norm}.weight",))
        if stream == "y" and is_last:
            continue
        yield from _linear(f"{official}.attn.proj_{stream}", f"{ours}.attn1.{out}")
        feed_forward = "ff" if stream == "x" else "ff_context"
        mlp = f"{official}.mlp_{stream}"
        yield KeyRule(f"{mlp}.w1.weight", (f"{ours}.{feed_forward}.net.0.proj.weight",), "swap")
        yield KeyRule(f"{mlp}.w2.weight", (f"{ours}.{feed_forward}.net.2.weight",))


def adapter_rules(depth: int, layers: tuple[int, ...]) -> Iterator[KeyRule]:
    """The authors' adapter names against MusicModel's."""
    for position in (0, 2):
        name = f"projection.{position}"
        yield from _linear(f"audio_projection.{name}", f"audio_projector.{name}")
    for position, layer in enumerate(layers):
        for projection in ("to_q", "to_k", "to_v", "to_out"):
            official = f"audio_cross_attn_blocks.{position}.{projection}"
            yield from _linear(official, f"zica.{layer}.{projection}")
    for i in range(depth):
        attention = f"backbone.transformer_blocks.{i}.attn1"
        for stream, (projections, out) in _STREAMS.items():
            qkv = f"blocks.{i}.attn.qkv_{stream}"
            yield KeyRule(f"{qkv}.lora_A", _lora(attention, projections, "A"), "share")
            yield KeyRule(f"{qkv}.lora_B", _lora(attention, projections, "B"), "stack")
            if stream == "y" and i == depth - 1:
                continue
            proj = f"blocks.{i}.attn.proj_{stream}"
            yield KeyRule(f"{proj}.lora_A", _lora(attention, (out,), "A"))
            yield KeyRule(f"{proj}.lora_B", _lora(attention, (out,), "B"))


def _linear(official: str, ours: str, kind: Literal["copy", "swap"] = "copy") -> Iterator[KeyRule]:
    for suffix in ("weight", "bias"):
        yield KeyRule(f"{official}.{suffix}", (f"{ours}.{suffix}",), kind)


def _lora(attention: str, names: tuple[str, ...], matrix: str) -> tuple[str, ...]:
    return tuple(f"{attention}.{name}.lora_{matrix}.{ADAPTER_NAME}.weight" for name in names)


def from_official(
    tensors: dict[str, Tensor], rules: Iterable[KeyRule], *, has_own_a: bool = False
) -> dict[str, Tensor]:
    """Rename, split and swap official tensors into ours.

    Args:
        tensors: The official file's tensors.
        rules: The key map.
        has_own_a: q, k and v hold an A matrix each: A is stacked and B block-diagonal, as
            `to_official` writes A matrices that have diverged.

    Raises:
        UserError: Tensors are missing or left over; names the first.
    """
    left, converted = dict(tensors), dict[str, Tensor]()
    for rule in rules:
        if rule.official not in left:
            raise UserError(f"the official file has no tensor {rule.official!r}.")
        pieces = rule.split(left.pop(rule.official), has_own_a=has_own_a)
        converted |= {n: piece.clone() for n, piece in zip(rule.ours, pieces, strict=True)}
    if left:
        raise UserError(f"the official file has {len(left)} unknown tensors, e.g. {min(left)!r}.")
    return converted


def to_official(tensors: dict[str, Tensor], rules: Iterable[KeyRule]) -> dict[str, Tensor]:
    """The inverse of `from_official`; where A matrices have diverged, of its ``has_own_a``."""
    rules = list(rules)
    has_own_a = any(
        not torch.equal(tensors[rule.ours[0]], tensors[name])
        for rule in rules
        if rule.kind == "share"
        for name in rule.ours[1:]
    )
    converted = {}
    for rule in rules:
        first, *others = (tensors[name] for name in rule.ours)
        match rule.kind, has_own_a:
            case "swap", _:
                first = torch.cat(first.chunk(2)[::-1])
            case "stack", True:
                first = torch.block_diag(first, *others)
            case ("stack", False) | ("share", True):
                first = torch.cat([first, *others])
        converted[rule.official] = first
    return converted
