"""Videos to sentences, by any model of transformers for videos or pictures and text."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from musicinfuser.errors import UserError
from musicinfuser.networks.backbone import DTYPES
from musicinfuser.pretrained_sources import load_pretrained
from musicinfuser.setting_checks import check_number

AUTHORS_PROMPT = "Describe the video in details."
# Stamps go to models as frame numbers at this rate.
_STAMPS_PER_SECOND = 1000


@dataclass(frozen=True)
class CaptionerSpec:
    """Which model describes videos, and with which prompt."""

    source: str
    """Hub id or folder of a model that ``AutoModelForImageTextToText`` loads, with a processor that
    has a chat template."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type the weights are held in."""
    prompt: str = AUTHORS_PROMPT
    """The prompt (authors' code)."""
    max_new_tokens: int = 512
    """Length of an answer (authors' code); Mochi reads its first 256 T5 tokens. Cuts are named."""
    show: Literal["video", "images"] = "video"
    """Show the pictures as one video, or one after another to a model that knows no videos."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("captioner.max_new_tokens", self.max_new_tokens, at_least=1)
        if not self.prompt.strip():
            raise UserError("captioner.prompt is empty; say what the model is to describe.")


class Captioner(nn.Module):
    """A frozen model and its processor. The same pictures give the same words, without any draw.

    The paper captions in-the-wild videos with VideoChat2 (section 4.5), which transformers does not
    hold; question, number of pictures and greedy decoding are those of the authors' code.
    """

    def __init__(self, spec: CaptionerSpec) -> None:
        """Load both.

        Raises:
            MissingWeightsError: Nothing loadable there.
            UserError: A model without a chat template or videos.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        super().__init__()
        self.spec = spec
        self.was_cut_off = False
        """Whether the last answer went on after ``max_new_tokens``."""
        self.processor = load_pretrained(AutoProcessor, spec.source, None)
        if not getattr(self.processor, "chat_template", None):
            raise UserError(
                f"captioner.source: {spec.source} has no chat template; choose a model that chats."
            )
        if spec.show == "video" and getattr(self.processor, "video_processor", None) is None:
            raise UserError(
                f"captioner.source: {spec.source} takes no videos; set captioner.show to images."
            )
        model = load_pretrained(
            AutoModelForImageTextToText, spec.source, None, dtype=DTYPES[spec.dtype]
        )
        # Settings of random draws, which a greedy decoder would warn of.
        for name in ("temperature", "top_p", "top_k"):
            setattr(model.generation_config, name, None)
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def describe(self, frames: Tensor, *, seconds: tuple[float, ...], duration: float) -> str:
        """The model's answer for a video, on one line; may be empty.

        Args:
            frames: uint8 (T, H, W, 3), RGB.
            seconds: When each is shown.
            duration: Length of the video in seconds.
        """
        inputs = self._inputs(frames.permute(0, 3, 1, 2).contiguous(), seconds, duration)
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)
        answer = self.model.generate(
            **inputs, do_sample=False, num_beams=1, max_new_tokens=self.spec.max_new_tokens
        )
        # Most models repeat the prompt.
        prompt = inputs["input_ids"]
        if torch.equal(answer[:, : prompt.shape[1]], prompt):
            answer = answer[:, prompt.shape[1] :]
        ends = self.model.generation_config.eos_token_id
        is_long = answer.shape[1] >= self.spec.max_new_tokens
        is_ended = answer[0, -1].item() in (ends if isinstance(ends, list) else [ends])
        self.was_cut_off = is_long and not is_ended
        (text,) = self.processor.batch_decode(answer, skip_special_tokens=True)
        return " ".join(text.split())

    def _inputs(self, frames: Tensor, seconds: tuple[float, ...], duration: float) -> Any:
        """What the model takes, for ``frames`` (T, 3, H, W)."""
        is_video = self.spec.show == "video"
        shown = [{"type": "video"}] if is_video else [{"type": "image"}] * len(frames)
        question = {"type": "text", "text": self.spec.prompt}
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": [*shown, question]}], add_generation_prompt=True
        )
        if not is_video:
            return self.processor(text=[prompt], images=[list(frames)], return_tensors="pt")
        stamps = {
            "total_num_frames": max(1, round(duration * _STAMPS_PER_SECOND)),
            "fps": float(_STAMPS_PER_SECOND),
            "duration": duration,
            "frames_indices": [round(moment * _STAMPS_PER_SECOND) for moment in seconds],
        }
        return self.processor(
            text=[prompt],
            videos=[frames],
            video_metadata=[stamps],
            do_sample_frames=False,
            return_tensors="pt",
        )
