"""What an adapted transformer asks of its backbone: all that one family does unlike another.

Shape legend: B batch, C latent channels, T latent frames, H and W latent height and width,
N visual tokens, L text tokens, S audio tokens, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from musicinfuser.clip_size import GEOMETRIES, LatentGeometry
from musicinfuser.diffusion.sampler import Euler, Solver
from musicinfuser.errors import UserError
from musicinfuser.memory.settings import GradientCheckpointing
from musicinfuser.networks.class_of import ClassOf
from musicinfuser.networks.vaes import Vae

SolverName = Literal["euler", "unipc"]
Stream = tuple[Tensor, ...]
"""What blocks change, the visual tokens ``(B, N, D)`` first: of Mochi also the text."""


@dataclass(frozen=True)
class Given:
    """What blocks and head read and none of them changes; nothing in it needs a gradient.

    The stream is not in it: blocks that are recomputed hold this until backward, all of them.
    """

    shared: tuple[Any, ...]
    """For every block alike: masks, rotations, text that is no stream."""
    of_block: Sequence[Any]
    """For each block its own: what the noise level makes of it."""
    of_head: Any
    """For the head: what the noise level makes of it."""
    latent_shape: torch.Size
    """``(B, C, T, H, W)``."""


@dataclass(frozen=True)
class ActivationShares:
    """What a block holds for its backward pass, per visual token, for the estimate of memory.

    In values of the width D of the stream or the inner width F of the feed-forward layers, of the
    stream's type (what is kept in fp32 counts twice); counted by `benchmarks.meta_memory`.
    """

    widths: float
    """Values of width D, LoRA's inputs among them."""
    inner_widths: float
    """Values of width F."""
    audio_widths: float
    """Values of width D of attention to audio: input, queries and attended values."""
    rotary_bytes: float = 0.0
    """Of the rotations of all blocks, bytes per token and D."""
    passing_widths: float = 0.0
    """Of width D, while the backward pass of a block is at its widest: at least so many; or"""
    passing_inner_widths: float = 0.0
    """of width F, if these are more."""
    given_widths: tuple[float, float] = (0.0, 0.0)
    """Where a first frame is given, more of width D: for all blocks alike, and of a block."""
    are_of_start: bool = False
    """Whether they are of the start of the backward pass, when there are no gradients yet: what is
    kept of blocks then leaves as gradients come, and only the larger of the two counts."""


@dataclass(frozen=True)
class Usual:
    """What clips and their sampling are where a call says nothing, as the base was published."""

    num_frames: int
    """Of a clip, and of a window of a longer one."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    num_steps: int
    guidance_scale: float
    """Of text."""
    text_tokens: int
    """Tokens of a text that the backbone reads."""
    negative_prompt: str = ""
    """What its own program samples away from."""
    shift: float | None = None
    """Of noise levels towards noise; None: the family's."""


class Backbone(ABC):
    """A frozen transformer of diffusers and what is particular about its family.

    No module: the transformer's parameters keep their names. A family is known by ``family`` in
    configs and files, and states its facts as attributes of the class, which need no weights.
    """

    family: ClassVar[str]
    model_class: ClassVar[ClassOf]
    pipeline: ClassVar[str]
    """diffusers' own pipeline, which takes the LoRA of an exported folder."""
    music_pipeline: ClassVar[str]
    """Ours, which takes the whole folder."""
    usual: ClassVar[Usual]
    """What a call of the pipeline means where it says nothing; see `usual_of`."""
    shares: ClassVar[ActivationShares]
    published: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Architectures by Hub id, for what is planned before weights are there."""
    blocks_name: ClassVar[str]
    """The attribute of the model that lists its blocks."""
    stored_sizes: ClassVar[tuple[str, ...]]
    """Entries of the model's config that an adapter must agree with."""
    text_width_key: ClassVar[str]
    """Entry of the model's config with the width of the text encoder's features."""
    lora_visual: ClassVar[tuple[str, ...]]
    """Projections of the visual stream within a block, as regular expressions."""
    lora_text: ClassVar[tuple[str, ...]]
    """Projections that text goes through, likewise."""
    lora_feed_forward: ClassVar[tuple[str, ...]]
    """Layers of the feed-forward networks of the visual stream, likewise."""
    lora_feed_forward_text: ClassVar[tuple[str, ...]] = ()
    """Of the text stream, where it has its own."""
    lora_shared_a: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of projections of ``attn1`` that may share their A; none where the option is refused.
    """
    not_streamed: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names within a block that run before the blocks do."""
    text_layers: ClassVar[tuple[str, ...]]
    """Beginnings of names within a block of the layers that text tokens go through."""
    vae: ClassVar[type[Vae]]
    """What makes latents of videos."""
    text_encoder_class: ClassVar[ClassOf]
    text_config_class: ClassVar[ClassOf]
    text_attentions: ClassVar[int] = 0
    """Of a block, to text alone."""
    most_text_tokens: ClassVar[int | None] = None
    """Tokens that a text can have; None: as many as are given."""
    reads_empty_text: ClassVar[bool] = False
    """Whether an empty text has tokens; else it has none."""

    def __init__(self, model: Any) -> None:
        """Take a transformer of this family; it is not changed."""
        self.model = model

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks in their order."""
        return getattr(self.model, self.blocks_name)

    @property
    def width(self) -> int:
        """Channels of the visual stream."""
        return self.model.config.num_attention_heads * self.model.config.attention_head_dim

    @property
    def geometry(self) -> LatentGeometry:
        """How clips become latents and latents tokens."""
        return GEOMETRIES[self.family]

    @property
    def sizes(self) -> dict[str, Any]:
        """What the settings of a checkpoint say of the backbone."""
        config = self.model.config
        return self.stored_family() | {name: config[name] for name in self.stored_sizes}

    # What is known without a model.

    @classmethod
    def suits(cls, config: Mapping[str, Any]) -> bool:
        """Whether a config of ``model_class`` is of this family, where a class serves several."""
        return True

    @classmethod  # noqa: B027 - most have nothing to refuse
    def check_source(cls, source: str) -> None:
        """Refuse weights that this family cannot run, where the source says so (`UserError`)."""

    @classmethod
    @abstractmethod
    def noise_levels(
        cls, num_steps: int, *, linear_threshold: float, shift: float | None
    ) -> Tensor:
        """Levels to sample at, falling from 1 to 0, ``(num_steps + 1,)`` fp32 on the CPU.

        Raises:
            UserError: No step, or an option that the family's levels do not have.
        """

    @classmethod
    def solver(
        cls, name: SolverName, num_steps: int, *, linear_threshold: float, shift: float | None
    ) -> Solver:
        """What integrates from noise to data; arguments as of `noise_levels`.

        Raises:
            UserError: The family has no such solver.
        """
        if name != "euler":
            raise UserError(
                f"sampling.solver is {name}, but {cls.family} is sampled by Euler's method; set "
                "euler."
            )
        return Euler(cls.noise_levels(num_steps, linear_threshold=linear_threshold, shift=shift))

    @classmethod
    def training_shift(cls, shift: float | None) -> float:
        """How far levels of training are moved towards noise, as `shifted` says; 1: not at all."""
        return 1.0

    @classmethod
    def stored_family(cls) -> dict[str, str]:
        """The family as files say it."""
        return {"family": cls.family}

    @classmethod
    def usual_of(cls, config: Mapping[str, Any]) -> Usual:
        """``usual`` of the checkpoint with this config, where those of a family differ."""
        return cls.usual

    @classmethod
    def texts_beside_captions(cls) -> tuple[str, ...]:
        """Texts whose features a cache holds besides those of its captions.

        What a dropped caption shows, and what samples are guided away from, so that the text
        encoder need not be there while training.
        """
        empty = ("",) if cls.reads_empty_text else ()
        return empty + ((cls.usual.negative_prompt,) if cls.usual.negative_prompt else ())

    @classmethod
    def check_vae(cls, config: Mapping[str, Any], what: str, hint: str) -> None:
        """Refuse the config of a VAE, ``what``, whose latents are not the family's (`UserError`).

        ``hint`` says what to give in its place.
        """
        expected = cls.vae.model_class.__name__
        if (found := config.get("_class_name", expected)) != expected:
            raise UserError(f"{what} is {found}, but {cls.family} takes {expected}; {hint}.")
        channels, own = config.get(cls.vae.channels_key), GEOMETRIES[cls.family].channels
        if channels not in (None, own):
            raise UserError(
                f"{what} makes latents of {channels} channels, but {cls.family} takes {own}; "
                f"{hint}."
            )

    @classmethod
    def check_text_encoder(cls, config: Mapping[str, Any], what: str, hint: str) -> None:
        """Likewise of a text encoder, by what its config says it is."""
        expected = cls.text_config_class.model_type
        if (found := config.get("model_type", expected)) != expected:
            raise UserError(f"{what} is a {found}, but {cls.family} takes {expected}; {hint}.")

    @classmethod
    def check_text_tokens(cls, number: int, what: str) -> None:
        """Refuse more tokens of a text than the backbone can read; ``what`` asks for them."""
        if cls.most_text_tokens is not None and number > cls.most_text_tokens:
            raise UserError(
                f"{what} is {number}, but {cls.family} reads {cls.most_text_tokens} tokens; set it "
                f"to {cls.most_text_tokens} or fewer."
            )

    @classmethod
    def is_published(cls, config: Mapping[str, Any]) -> bool:
        """Whether a model has the size of one that was published."""
        sizes = ("num_layers", "num_attention_heads", "attention_head_dim")
        return any(
            all(config[name] == known[name] for name in sizes) for known in cls.published.values()
        )

    @classmethod
    def cleaned(cls, text: str) -> str:
        """A text as the backbone's own pipeline hands it to the tokenizer."""
        return text

    @classmethod
    def lora_pattern(cls, streams: str, targets: Sequence[str] = ("attention",)) -> str:
        """The anchored pattern of adapted modules; ``streams`` and ``targets`` as in `LoraSpec`.

        Full paths: the bare suffix ``to_q`` would also hit ``time_embed.pooler.to_q`` of Mochi.
        """
        layers = [name for names in cls.lora_layers(streams, targets).values() for name in names]
        return rf"{cls.blocks_name}\.\d+\.({'|'.join(layers)})"

    @classmethod
    def lora_layers(cls, streams: str, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Adapted layers within a block by what they are: ``text``, else their target."""
        own = {"attention": cls.lora_visual, "feed_forward": cls.lora_feed_forward}
        text = {"attention": cls.lora_text, "feed_forward": cls.lora_feed_forward_text}
        found = {target: own[target] for target in targets}
        if streams == "both":
            found["text"] = tuple(name for target in targets for name in text[target])
        return found

    @classmethod
    def random_values(cls, name: str, shape: torch.Size, stream: torch.Generator) -> Tensor | None:
        """Random values of a parameter that is unlike a linear layer's; None of all others."""
        return None

    @classmethod  # noqa: B027 - most have none
    def restore_buffers(cls, model: Any) -> None:
        """Compute what a model holds beside its parameters, after it was given empty memory."""

    # What is done with a model.

    @abstractmethod
    def adapt_blocks(self) -> None:
        """Replace the blocks, once, by ones that take audio, with the same weights and names.

        Raises:
            UserError: Blocks have hooks, which belong to the ones that would be replaced.
        """

    @abstractmethod
    def timestep(self, sigma: Tensor) -> Tensor:
        """The number that the backbone knows a noise level ``(B,)`` in [0, 1] by, fp32."""

    @abstractmethod
    def embed(
        self,
        latents: Tensor,
        text: Tensor,
        timestep: Tensor,
        mask: Tensor | None,
        lengths: tuple[int, ...] | None,
    ) -> tuple[Stream, Given]:
        """What goes into the first block; arguments as of `MusicModel.forward`.

        Raises:
            UserError: Latents that cannot be cut into patches, or text that is too long.
        """

    @abstractmethod
    def run_block(
        self,
        index: int,
        zica: nn.Module | None,
        audio_weight: Tensor | None,
        given: Given,
        policy: GradientCheckpointing,
        *inputs: Tensor | None,
    ) -> Stream:
        """A block with its audio; ``inputs``, which may need a gradient: the stream, then audio."""

    @abstractmethod
    def head(self, visual: Tensor, given: Given) -> Tensor:
        """The velocity z - eps ``(B, C, T, H, W)``, towards the data whatever the base predicts."""

    @abstractmethod
    def compiled_run(self) -> Callable[..., Any]:
        """What runs a block and its audio, compiled for all blocks of the family."""

    def keep_modulations_on_host(self) -> None:
        """Hold the layers in host memory that give the blocks' modulations.

        Raises:
            UserError: The family has no such layers.
        """
        raise UserError(
            f"memory.modulations_on_host is for layers that {self.family} does not have; set it to "
            "false."
        )

    @abstractmethod
    def feed_forward(self, block: nn.Module) -> nn.Linear:
        """The layer that brings a block's feed-forward back to the width of the stream."""

    def modulation_layers(self, block: nn.Module) -> list[nn.Module]:
        """Layers of a block that run before the blocks do: gathered apart where it is sharded."""
        return []
