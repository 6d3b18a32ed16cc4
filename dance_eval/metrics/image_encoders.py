"""CLIP, DINO and VideoMAE as encoders of frames, with weights from a folder or the Hub."""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Model,
    VideoMAEModel,
    ViTModel,
)

from dance_eval.metrics.clip import NetworkPart
from dance_eval.metrics.features import FrameFeatures
from dance_eval.metrics.frame_pixels import clip_pixels, dino_pixels, video_pixels
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.pretrained_sources import find_local, load_pretrained

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class EncoderError(UserError):
    """An image encoder is set up in a way that cannot work. The message is one sentence."""


@dataclass(frozen=True)
class ImageEncoder(NetworkPart):
    """A frozen network that describes frames by vectors.

    Its weights are loaded when first used, once for all encoders of one process that are alike.

    Raises:
        EncoderError: If a setting is out of range or the weights are another kind of model.
        MissingWeightsError: If there is neither such a folder nor such a repository on the Hub.
    """

    weights: str
    """Folder in transformers' layout, or a Hub id."""
    device: str = "auto"
    """As torch names it; ``auto`` is the first GPU, or the CPU where there is none."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights; features are float32."""
    batch_size: int = 32
    """Frames at once. It changes memory and speed, and numbers by rounding only."""

    kind: ClassVar[str]
    """``model_type`` in the config.json of such a model."""

    def __post_init__(self) -> None:
        """Check the settings, and that the weights are of the right kind."""
        if self.batch_size < 1:
            raise EncoderError(f"batch_size is {self.batch_size}; at least 1 frame is needed.")
        if self.dtype not in DTYPES:
            raise EncoderError(f"dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}.")
        try:
            device = torch.device("cpu" if self.device == "auto" else self.device)
        except RuntimeError as error:
            raise EncoderError(
                f"device is {self.device!r}, which torch does not know; try auto, cpu or cuda."
            ) from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise EncoderError(f"device is {self.device!r}, but torch sees no GPU; set it to auto.")
        if self._config.model_type != self.kind:
            raise EncoderError(
                f"{self.weights}: holds a {self._config.model_type!r} model, not a {self.kind!r} "
                "model; name another folder or Hub id."
            )

    def fingerprint(self) -> str:
        """What the weights are, now: a hash of a folder, or id and commit on the Hub."""
        if self._commit is not None:
            return f"{self.weights}@{self._commit}"
        try:
            return fingerprint_folder(self.weights)
        except OSError as error:
            raise EncoderError(f"{self.weights}: {error}") from error

    def fingerprints(self) -> dict[str, str]:
        """That of the weights."""
        return {"weights": self.fingerprint()}

    @abstractmethod
    def embed_images(self, frames: Tensor) -> Tensor:
        """Vectors of frames, uint8 RGB of shape (T, H, W, 3), not normalised, float32 (T, D)."""

    @staticmethod
    @abstractmethod
    def _load(source: str, **options: Any) -> nn.Module: ...

    @torch.no_grad()
    def _in_parts(self, frames: Tensor, embed: Callable[[Any, Tensor], Tensor]) -> Tensor:
        """Vectors of frames, a few at a time on the network's device, float32 on the CPU."""
        model = self._model
        parts = frames.split(self.batch_size) if len(frames) else [frames]
        vectors = [embed(model, part.to(model.device)).float().cpu() for part in parts]
        return torch.cat(vectors)

    @functools.cached_property
    def _config(self) -> Any:
        return load_pretrained(AutoConfig, self.weights, None)

    @functools.cached_property
    def _commit(self) -> str | None:
        """What a Hub id stands for, known since its config.json was read; None for a folder."""
        folder = find_local(self.weights, None)
        is_cached = folder is not None and folder.parent.name == "snapshots"
        return folder.name if folder is not None and is_cached else None

    @functools.cached_property
    def _identity(self) -> str:
        return self.fingerprint()

    @property
    def _model(self) -> Any:
        dtype = DTYPES[self.dtype]
        return _loaded(self._load, self.weights, self._commit, self._identity, dtype, self.where)


# The fingerprint tells changed weights from those in memory.
@functools.cache
def _loaded(
    load: Callable[..., Any], source: str, commit: str | None, fingerprint: str,
    dtype: torch.dtype, device: str,
) -> nn.Module:  # fmt: skip
    network = load(source, dtype=dtype, revision=commit or "main")
    return network.eval().requires_grad_(False).to(device)


@dataclass(frozen=True)
class ClipEncoder(ImageEncoder):
    """CLIP (Radford et al. 2021, arXiv 2103.00020): pictures and sentences as vectors."""

    kind = "clip"

    @property
    def width(self) -> int:
        """Length of the vectors."""
        return self._config.projection_dim

    def embed_images(self, frames: Tensor, *, antialias: bool = False) -> Tensor:
        """As in `ImageEncoder`; frames resized as VBench does, or ``antialias`` as CLIP's code."""
        size = self._config.vision_config.image_size

        def embed(model: Any, part: Tensor) -> Tensor:
            pixels = clip_pixels(part, size=size, antialias=antialias).to(model.dtype)
            return model.get_image_features(pixel_values=pixels).pooler_output

        return self._in_parts(frames, embed)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Vectors of sentences, not normalised, float32 (N, D), and whether each was cut.

        What is beyond the 77th token, end mark included, is not read.
        """
        model = self._model
        tokenizer = _tokenizer(self.weights, self._commit)
        longest = self._config.text_config.max_position_embeddings
        whole = tokenizer(list(texts)).input_ids
        tokens = tokenizer(
            list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        ).to(model.device)
        vectors = model.get_text_features(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output
        return vectors.float().cpu(), [len(ids) > longest for ids in whole]

    @staticmethod
    def _load(source: str, **options: Any) -> nn.Module:
        return load_pretrained(CLIPModel, source, None, **options)


@functools.cache
def _tokenizer(source: str, commit: str | None) -> Any:
    return load_pretrained(CLIPTokenizer, source, None, revision=commit or "main")


class ClipFrameFeatures(FrameFeatures):
    """CLIP vectors of single frames, resized as its own code does, for distances between sets."""

    def __init__(self, encoder: ClipEncoder) -> None:
        self.encoder = encoder
        self.name = f"clip {encoder.weights} {encoder.dtype}"
        self.in_workers = encoder.in_workers

    def fingerprints(self) -> dict[str, str]:
        """Those of the encoder."""
        return self.encoder.fingerprints()

    def features(self, frames: Tensor) -> Tensor:
        """`ClipEncoder.embed_images`, (T, H, W, 3) to float32 (T, D), as CLIP resizes frames."""
        return self.encoder.embed_images(frames, antialias=True)


@dataclass(frozen=True)
class DinoEncoder(ImageEncoder):
    """DINO (Caron et al. 2021, arXiv 2104.14294): its class token, as VBench uses it.

    Frames keep their aspect, so position embeddings are stretched to the frame; that is done as in
    DINO's code, whose grid is a tenth of a patch off the one of transformers.
    """

    kind = "vit"

    def embed_images(self, frames: Tensor) -> Tensor:
        """As in `ImageEncoder`; class tokens of frames that keep their aspect."""

        def embed(model: Any, part: Tensor) -> Tensor:
            pixels = dino_pixels(part, size=self._config.image_size)
            return model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]

        return self._in_parts(frames, embed)

    @staticmethod
    def _load(source: str, **options: Any) -> nn.Module:
        model = load_pretrained(ViTModel, source, None, add_pooling_layer=False, **options)
        embeddings = model.embeddings
        embeddings.interpolate_pos_encoding = functools.partial(
            dino_positions, embeddings.position_embeddings, patch_size=embeddings.patch_size
        )
        return model


@dataclass(frozen=True)
class Dinov2Encoder(ImageEncoder):
    """DINOv2 (Oquab et al. 2023, arXiv 2304.07193): its class token.

    Frames are resized and cropped as CLIP's own code does, with ImageNet's means: short side 224.
    """

    kind = "dinov2"

    def embed_images(self, frames: Tensor) -> Tensor:
        """As in `ImageEncoder`; class tokens of the middle of the frames."""
        patch = self._config.patch_size
        size = min(self._config.image_size, 224) // patch * patch

        def embed(model: Any, part: Tensor) -> Tensor:
            return model(video_pixels(part, size=size).to(model.dtype)).last_hidden_state[:, 0]

        return self._in_parts(frames, embed)

    @staticmethod
    def _load(source: str, **options: Any) -> nn.Module:
        return load_pretrained(Dinov2Model, source, None, **options)


@dataclass(frozen=True)
class VideoMaeEncoder(ImageEncoder):
    """VideoMAE (Tong et al. 2022, arXiv 2203.12602): the mean of its tokens, one vector a clip."""

    kind = "videomae"

    def embed_images(self, frames: Tensor) -> Tensor:
        """One vector of a clip, float32 (1, D), from as many frames as the model takes.

        They are spread evenly over the clip, which needs no fewer than two; of a clip that has
        fewer than the model takes, some are taken twice.
        """
        number = self._config.num_frames
        if len(frames) < 2:
            raise UserError(f"{len(frames)} frames are no video; give at least 2.")
        places = torch.linspace(0, len(frames) - 1, number).round().long()

        def embed(model: Any, part: Tensor) -> Tensor:
            pixels = video_pixels(part, size=self._config.image_size).to(model.dtype)
            return model(pixels[None]).last_hidden_state.mean(dim=1)

        return self._in_parts(frames[places], embed)

    @torch.no_grad()
    def _in_parts(self, frames: Tensor, embed: Callable[[Any, Tensor], Tensor]) -> Tensor:
        """Not in parts: the frames belong together."""
        model = self._model
        return embed(model, frames.to(model.device)).float().cpu()

    @staticmethod
    def _load(source: str, **options: Any) -> nn.Module:
        return load_pretrained(VideoMAEModel, source, None, **options)


class VideoMaeFeatures(FrameFeatures):
    """VideoMAE vectors of clips, for distances between sets.

    Fréchet distances in them are of FVD's family, not FVD, whose features are I3D's; they weigh
    motion more and content less (Ge et al. 2024, arXiv 2404.12391).
    """

    ordered = True

    def __init__(self, encoder: VideoMaeEncoder) -> None:
        self.encoder = encoder
        self.name = f"videomae {encoder.weights} {encoder.dtype}"
        self.in_workers = encoder.in_workers

    def fingerprints(self) -> dict[str, str]:
        """Those of the encoder."""
        return self.encoder.fingerprints()

    def features(self, frames: Tensor) -> Tensor:
        """`VideoMaeEncoder.embed_images`, (T, H, W, 3) to float32 (1, D)."""
        return self.encoder.embed_images(frames)


def dino_positions(
    positions: Tensor, tokens: Tensor, height: int, width: int, *, patch_size: int
) -> Tensor:
    """Position embeddings of a picture of any size, as in DINO's code; sides in px.

    Takes those of the class token and a square of patches, shape (1, 1 + N, D), to (1, 1 + P, D),
    for tokens of shape (B, 1 + P, D).
    """
    if tokens.shape[1] == positions.shape[1] and height == width:
        return positions
    side = math.isqrt(positions.shape[1] - 1)
    square = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    # The tenth guards DINO's code against a patch lost to rounding; it moves the grid as well.
    scale = ((height // patch_size + 0.1) / side, (width // patch_size + 0.1) / side)
    stretched = nn.functional.interpolate(square, scale_factor=scale, mode="bicubic")
    return torch.cat([positions[:, :1], stretched.flatten(2).transpose(1, 2)], dim=1)
