"""Operations of an adapted transformer, counted from the shapes of its layers and of a clip.

Counted are matrix products and attention, a multiplication and an addition as two operations;
elementwise work, embedding and head are left out, so that this is a bound from below. Flash
attention computes the logits again in its backward pass, which is part of its algorithm and counted
as useful. Weights in 8 bits become numbers of the model's type first: the products are the same.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

from torch import nn

from musicinfuser.clip_size import num_latent_frames, num_visual_tokens
from musicinfuser.networks.lora import is_lora_name
from musicinfuser.networks.music_model import MusicModel

Policy = Literal["none", "official", "attention", "self_attention", "full"]
"""What is computed again in the backward pass: nothing; everything but attention, its output
projection and ZICA (authors' code); everything but the attention kernels; but those of
self-attention; whole blocks."""
POLICIES: tuple[Policy, ...] = ("none", "official", "attention", "self_attention", "full")
# Flash attention's backward pass: five products of the forward pass's size, which has two.
ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True)
class Work:
    """TFLOP of one model and one clip; every sample of a batch takes as much."""

    num_tokens: int
    """Visual tokens."""
    num_frames: int
    """Latent frames, which are the audio tokens."""
    num_text_tokens: int
    width: int
    """Of the visual stream."""
    num_layers: int
    num_audio_layers: int
    visual_weights: int
    """Frozen weights of all blocks that each visual token is multiplied with."""
    text_weights: int
    """Likewise each text token."""
    lora_weights: int
    """Of LoRA, likewise each visual token."""
    lora_text_weights: int
    zica_weights: int
    """Of ZICA, likewise each visual token: of queries and outputs; audio tokens are too few to
    count."""
    zica_width: int
    """Channels of attention to audio."""
    text_attentions: int
    """Of a block, to text alone. Where there is none text is a stream, which blocks change."""

    @classmethod
    def of(
        cls, model: MusicModel, num_frames: int, height: int, width: int, *, text_tokens: int
    ) -> Self:
        """The operations of a model on a clip.

        Args:
            model: On any device, the meta device included.
            num_frames: As many as the family takes, 6k + 1 of Mochi.
            height: Pixels.
            width: Pixels.
            text_tokens: Tokens of the text that blocks read.
        """
        kind = model.kind
        counted = dict.fromkeys(("visual", "text", "lora", "lora_text"), 0)
        for block in kind.blocks:
            for name, layer in block.named_modules():
                if not isinstance(layer, nn.Linear) or name.startswith(kind.not_streamed):
                    continue
                reads_text = name.startswith(kind.text_layers)
                own = ("text" if reads_text else "visual"), ("lora_text" if reads_text else "lora")
                counted[own[is_lora_name(f"{name}.weight")]] += (
                    layer.in_features * layer.out_features
                )
        queries = [q for zica in model.zica.values() if (q := getattr(zica, "to_q", None))]
        return cls(
            num_tokens=num_visual_tokens(num_frames, height, width, geometry=kind.geometry),
            num_frames=num_latent_frames(num_frames, geometry=kind.geometry),
            num_text_tokens=text_tokens,
            width=kind.width,
            num_layers=len(kind.blocks),
            num_audio_layers=len(queries),
            visual_weights=counted["visual"],
            text_weights=counted["text"],
            lora_weights=counted["lora"],
            lora_text_weights=counted["lora_text"],
            zica_weights=sum(2 * q.in_features * q.out_features for q in queries),
            zica_width=queries[0].out_features if queries else 0,
            text_attentions=kind.text_attentions,
        )

    @cached_property
    def terms(self) -> dict[str, float]:
        """TFLOP of each part, forward.

        ``out_projection``, after visual self-attention, is part of ``visual_linears``.
        """
        n, text, layers = self.num_tokens, self.num_text_tokens, self.num_layers
        attended = n if self.text_attentions else n + text
        operations = {
            "visual_linears": 2 * n * self.visual_weights,
            "text_linears": 2 * text * self.text_weights,
            "out_projection": 2 * n * self.width**2 * layers,
            "attention": 4 * attended**2 * self.width * layers,
            "text_attention": 4 * n * text * self.width * layers * self.text_attentions,
            "lora": 2 * (n * self.lora_weights + text * self.lora_text_weights),
            "zica_linears": 2 * n * self.zica_weights,
            "zica_attention": 4 * n * self.num_frames * self.zica_width * self.num_audio_layers,
        }
        return {name: number / 1e12 for name, number in operations.items()}

    @property
    def forward(self) -> float:
        """One pass of the model."""
        return sum(self.terms.values()) - self.terms["out_projection"]

    @property
    def backward(self) -> float:
        """Gradients of activations, and of the weights of LoRA and ZICA.

        A text that no block changes has no gradient.
        """
        terms = self.terms
        frozen = terms["visual_linears"] + (0 if self.text_attentions else terms["text_linears"])
        attention = terms["attention"] + terms["text_attention"] + terms["zica_attention"]
        trained = terms["zica_linears"] + terms["lora"]
        return frozen + 2 * trained + ATTENTION_BACKWARD * attention

    @property
    def useful(self) -> float:
        """A training step in which nothing is computed twice; the measure of utilisation."""
        return self.forward + self.backward

    def recomputed(self, policy: Policy) -> float:
        """What a policy computes a second time."""
        kept: dict[Policy, tuple[str, ...]] = {
            "full": (),
            "attention": ("attention", "text_attention", "zica_attention"),
            "self_attention": ("attention",),
            "official": ("attention", "zica_linears", "zica_attention", "out_projection"),
        }
        if policy == "none":
            return 0.0
        again = self.forward - sum(self.terms[name] for name in kept[policy])
        # LoRA's update of the output projection is kept with it: one in four.
        return again - (self.terms["lora"] / 4 if policy == "official" else 0)

    def training_step(self, policy: Policy) -> float:
        """Forward, backward and what is computed again."""
        return self.useful + self.recomputed(policy)

    def sampling(self, num_steps: int) -> float:
        """Steps with guidance, LoRA merged: a pass with this text, and one without any.

        Of a family that fills texts up the other is as long.
        """
        empty = self.num_text_tokens if self.text_attentions else 0
        merged = replace(self, lora_weights=0, lora_text_weights=0)
        without = replace(merged, num_text_tokens=empty)
        return num_steps * (merged.forward + without.forward)
