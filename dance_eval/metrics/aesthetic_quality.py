"""VBench's aesthetic quality: LAION's linear head on CLIP ViT-L/14.

The head comes as a pickle, sa_0_4_vit_l_14_linear.pth of github.com/LAION-AI/aesthetic-predictor.
Once converted, it is read as plain numbers:

    python -m dance_eval.metrics.aesthetic_quality --convert FILE.pth OUT.safetensors
"""

import argparse
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.features import scrambled_frame
from dance_eval.metrics.image_encoders import ClipEncoder
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.fingerprint import file_digest
from musicinfuser.safetensors_files import save_tensors


class HeadError(UserError):
    """A linear head cannot be read or does not fit. The message is one sentence."""


def aesthetic_scores(image_vectors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A tenth of what the head says of CLIP's vectors of frames.

    Takes shapes (T, D), (1, D) and (1,) to (T,): about 0 to 1, without bounds.
    """
    return (normalize(image_vectors, dim=-1) @ weight.T + bias).squeeze(-1) / 10


class AestheticQuality(ClipMetric):
    """Aesthetic quality of a clip as VBench computes it, mean over all frames.

    Values per clip, of which `compute` gives the means:
        score: About 0 to 1; Mochi on VBench's prompts has 0.51.
        scrambled: Of the middle frame with its pixels in random order.

    Args:
        encoder: Which CLIP; VBench's is ``openai/clip-vit-large-patch14``.
        head: A safetensors file with ``weight`` (1, D) and ``bias`` (1,), converted from LAION's.
    """

    value_names = ("score", "scrambled")

    def __init__(self, *, encoder: ClipEncoder, head: str, name: str = "aesthetic_quality") -> None:
        super().__init__(name=name, part=encoder)
        self.encoder = encoder
        self.head = head
        weight, bias = read_head(head)
        if weight.shape[1] != encoder.width:
            raise HeadError(
                f"{head}: is for vectors of {weight.shape[1]} values, but {encoder.weights} gives "
                f"{encoder.width}; VBench's is for openai/clip-vit-large-patch14."
            )
        self._head = (weight, bias)

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` without frames."""
        frames = torch.cat([clip.frames, scrambled_frame(clip)[None]])
        vectors = self.encoder.embed_images(frames, antialias=False)
        scores = aesthetic_scores(vectors, *self._head).double()
        return {"score": float(scores[:-1].mean()), "scrambled": float(scores[-1])}

    def fingerprints(self) -> dict[str, str]:
        """Those of the encoder and of the head, as they are now."""
        return super().fingerprints() | {"head": file_digest(Path(self.head))[:16]}


def read_head(path: str | Path) -> tuple[Tensor, Tensor]:
    """Weight (1, D) and bias (1,) of a linear head, float32; `HeadError` if there is none."""
    try:
        return _checked(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise HeadError(
            f"{path}: holds no linear head ({error}); make it from LAION's file with `python -m "
            f"dance_eval.metrics.aesthetic_quality --convert FILE.pth {path}`."
        ) from error


def convert_head(source: str | Path, target: str | Path) -> None:
    """Rewrite LAION's state dict of a linear layer as safetensors; `HeadError` if it is none."""
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
        weight, bias = _checked(content)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HeadError(
            f"{source}: is not LAION's linear head, such as sa_0_4_vit_l_14_linear.pth ({reason})."
        ) from error
    save_tensors({"weight": weight, "bias": bias}, target)


def _checked(content: object) -> tuple[Tensor, Tensor]:
    tensors = content if isinstance(content, dict) else {}
    shapes = {key: tuple(getattr(value, "shape", ())) for key, value in tensors.items()}
    width = shapes.get("weight", ())[-1:]
    if shapes != {"weight": (1, *width), "bias": (1,)} or not width:
        raise UserError(f"expected weight (1, D) and bias (1,), found {shapes}")
    return tensors["weight"].float(), tensors["bias"].float()


def main(arguments: list[str] | None = None) -> None:
    """Convert a head."""
    parser = argparse.ArgumentParser(
        prog="python -m dance_eval.metrics.aesthetic_quality",
        description="Rewrite LAION's linear head as safetensors.",
    )
    parser.add_argument(
        "--convert", nargs=2, required=True, metavar=("FILE.pth", "OUT.safetensors")
    )
    source, target = parser.parse_args(arguments).convert
    with in_one_sentence("aesthetic_quality"):
        convert_head(source, target)
    print(f"{target} written.")


if __name__ == "__main__":
    main()
