"""Qwen3-Omni in this process, by transformers: its thinker, which answers in text."""

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from dance_eval.judges.judge import (
    CLIP_NAMES,
    SOUND_RATE_HZ,
    Answer,
    Judge,
    JudgeError,
    JudgeInput,
)
from dance_eval.judges.questions import Question
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.setting_checks import check_number

_NUM_TOP = 20
_TURN = threading.Lock()


@dataclass(kw_only=True, eq=False)
class OmniJudge(Judge):
    """Answers greedily, with log-probabilities; picture and sound are parts of their own.

    The weights load with the first question (30B-A3B in bfloat16: 70 to 80 GB for short clips, not
    measured here).

    Args:
        source: Hub id or folder with model and processor.
        dtype: Type the weights are held in.
        device: Where the model runs; ``"auto"`` spreads it over what there is.
        fps: Frames per second that are shown; the paper does not say how many its judge saw.
        max_height: Taller frames are scaled down to it, in px.
        max_new_tokens: Length of an answer.

    Raises:
        ValueError: If an argument is out of range.
    """

    source: str = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    device: str = "auto"
    fps: float = 8.0
    max_height: int = 480
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name in ("fps", "max_height", "max_new_tokens"):
            check_number(name, getattr(self, name), above=0)

    @property
    def identity(self) -> dict[str, Any]:
        """Model and how it is asked; not where it runs."""
        return {
            "transformers": self.source,
            "dtype": self.dtype,
            "fps": self.fps,
            "max_height": self.max_height,
            "max_new_tokens": self.max_new_tokens,
        }

    def check(self) -> None:
        """See whether there is a model of the kind, by its config; `JudgeError` if not."""
        from transformers import AutoConfig

        try:
            kind = AutoConfig.from_pretrained(self.source).model_type
        except (OSError, ValueError) as error:
            raise JudgeError(
                f"The judge cannot be asked: {self.source} is no model that can be read "
                f"({type(error).__name__}); download Qwen3-Omni and set `source` to its folder."
            ) from error
        if not kind.startswith("qwen3_omni_moe"):
            raise JudgeError(f"{self.source}: is a {kind}, not a Qwen3-Omni; set another `source`.")

    def ask(self, clips: Sequence[JudgeInput], question: Question) -> Answer:
        """Put one question; `UserError` if the model cannot be loaded or a clip not be read."""
        with _TURN:
            model, processor = self._parts
            inputs = self._inputs(processor, clips, question).to(model.device, dtype=model.dtype)
            with torch.no_grad():
                out = model.generate(
                    **inputs,
                    do_sample=False,
                    max_new_tokens=self.max_new_tokens,
                    return_dict_in_generate=True,
                    output_scores=True,
                )
        tokens = out.sequences[0, inputs["input_ids"].shape[1] :]
        text = processor.tokenizer.decode(tokens, skip_special_tokens=True)
        positions = tuple(_top(scores[0], processor.tokenizer) for scores in out.scores)
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        is_cut_off = len(tokens) >= self.max_new_tokens and int(tokens[-1]) not in ends
        cut_off = f"it has max_new_tokens {self.max_new_tokens} and no end" if is_cut_off else None
        return Answer(text, positions, cut_off)

    @functools.cached_property
    def _parts(self) -> tuple[Any, Any]:
        """Model and processor."""
        from transformers import Qwen3OmniMoeProcessor, Qwen3OmniMoeThinkerForConditionalGeneration

        try:
            processor = Qwen3OmniMoeProcessor.from_pretrained(self.source)
            model = Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(
                self.source,
                dtype=getattr(torch, self.dtype),
                device_map=self.device,
                use_safetensors=True,
            )
        except OSError as error:
            raise JudgeError(f"{self.source}: cannot be loaded ({error}).") from error
        # Settings of random draws, which a greedy decoder would warn of.
        for name in ("temperature", "top_p", "top_k"):
            setattr(model.generation_config, name, None)
        return model.eval().requires_grad_(False), processor

    def _inputs(self, processor: Any, clips: Sequence[JudgeInput], question: Question) -> Any:
        content: list[dict[str, str]] = []
        for name in CLIP_NAMES[: len(clips)]:
            if len(clips) > 1:
                content.append({"type": "text", "text": f"Video {name}:"})
            content += [{"type": "video"}, {"type": "audio"}]
        content.append({"type": "text", "text": question.text})
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return processor(
            text=[prompt],
            videos=[self._frames(clip) for clip in clips],
            audio=[clip.waveform.numpy() for clip in clips],
            sampling_rate=SOUND_RATE_HZ,
            fps=self.fps,
            do_sample_frames=False,
            padding=True,
            return_tensors="pt",
        )

    def _frames(self, clip: JudgeInput) -> torch.Tensor:
        """uint8 (T, 3, H, W) at ``fps``, two frames at least."""
        info = probe_video(clip.path)
        height = min(info.height, self.max_height)
        num_frames = max(int(info.duration_seconds * self.fps), 2)
        frames = read_clip(
            clip.path,
            start_seconds=0.0,
            num_frames=num_frames,
            height=height,
            width=max(round(info.width * height / info.height), 1),
            fps=max(self.fps, num_frames / info.duration_seconds),
            crop=None,
        )
        return frames.permute(0, 3, 1, 2).contiguous()


def _top(scores: torch.Tensor, tokenizer: Any) -> dict[str, float]:
    """The likeliest tokens by their text, with log-probabilities."""
    chances = scores.float().log_softmax(dim=-1)
    best = chances.topk(min(_NUM_TOP, len(chances)))
    found: dict[str, float] = {}
    for chance, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        # Tokens of one text keep the likeliest.
        found.setdefault(tokenizer.decode([token]), chance)
    return {text: chance for text, chance in found.items() if chance > float("-inf")}
