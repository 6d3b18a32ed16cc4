"""A judge behind any OpenAI-compatible server, such as vLLM serving Qwen3-Omni.

    vllm serve Qwen/Qwen3-Omni-30B-A3B-Instruct --max-model-len 32768 \
      --limit-mm-per-prompt '{"video": 2, "audio": 2}'

Picture and sound travel as parts of their own: servers drop the sound of a video in silence, or
need options that change from version to version to hear it.
"""

import base64
import functools
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dance_eval.judges.http_json import Refused, Unreachable, exchange, wait_seconds
from dance_eval.judges.judge import SOUND_RATE_HZ, Answer, Judge, JudgeError, Shown
from dance_eval.judges.questions import Question
from musicinfuser.errors import UserError
from musicinfuser.media.audio import wav_bytes
from musicinfuser.media.video_writing import with_sound

_PROBE_SECONDS = 5.0
_CLIP_NAMES = ("A", "B")


class ServerJudge(Judge):
    """Asks by chat completions at temperature 0, with log-probabilities of the tokens.

    Args:
        base_url: Up to and with ``/v1``.
        model: As the server names it.
        audio_form: ``"input_audio"`` (OpenAI, vLLM) or ``"audio_url"`` with a data URL (vLLM).
        top_logprobs: Likeliest tokens per position, up to 20; 0 asks for none.
        max_tokens: Of an answer.
        system_prompt: None sends none.
        extra_body: Further fields of each request, e.g. vLLM's ``media_io_kwargs``.
        concurrency: Questions under way at once.
        time_limit_seconds: Of one try.
        num_retries: Tries after the first.
        first_wait_seconds: Before the second try; doubles with each further one.
        api_key_variable: Environment variable that holds the key, where one is needed.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        base_url: str = "http://localhost:8000/v1",
        model: str,
        audio_form: Literal["input_audio", "audio_url"] = "input_audio",
        top_logprobs: int = 20,
        max_tokens: int = 32,
        system_prompt: str | None = None,
        extra_body: dict[str, Any] | None = None,
        concurrency: int = 8,
        time_limit_seconds: float = 120.0,
        num_retries: int = 5,
        first_wait_seconds: float = 1.0,
        api_key_variable: str = "OPENAI_API_KEY",
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url is {base_url!r}; it begins with http:// or https://.")
        least = {"top_logprobs": 0, "max_tokens": 1, "concurrency": 1, "num_retries": 0}
        given = {
            "top_logprobs": top_logprobs,
            "max_tokens": max_tokens,
            "concurrency": concurrency,
            "num_retries": num_retries,
        }
        for name, value in given.items():
            if value < least[name]:
                raise UserError(f"{name} is {value}; use {least[name]} or more.")
        if not time_limit_seconds > 0 or first_wait_seconds < 0:
            raise UserError("time_limit_seconds must be positive, first_wait_seconds at least 0.")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.audio_form = audio_form
        self.top_logprobs = top_logprobs
        self.max_tokens = max_tokens
        self.system_prompt = system_prompt
        self.extra_body = extra_body or {}
        self.concurrency = concurrency
        self.time_limit_seconds = time_limit_seconds
        self.num_retries = num_retries
        self.first_wait_seconds = first_wait_seconds
        self.api_key_variable = api_key_variable
        self._is_down = False

    @property
    def identity(self) -> dict[str, Any]:
        """Model and request; not where the server stands or how patient we are."""
        return {
            "model": self.model,
            "temperature": 0,
            "audio_form": self.audio_form,
            "top_logprobs": self.top_logprobs,
            "max_tokens": self.max_tokens,
            "system_prompt": self.system_prompt,
            **({"extra_body": self.extra_body} if self.extra_body else {}),
        }

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.api_key_variable)
        return {"Authorization": f"Bearer {key}"} if key else {}

    def check(self) -> None:
        """Ask for the server's models, once.

        Raises:
            JudgeError: If it does not answer or serves other models.
        """
        url = f"{self.base_url}/models"
        limit = min(_PROBE_SECONDS, self.time_limit_seconds)
        try:
            listed = exchange(url, body=None, headers=self._headers(), time_limit_seconds=limit)
        except JudgeError as error:
            raise JudgeError(
                f"The judge cannot be asked: {str(error).rstrip('.')}; start its server, or give "
                "`base_url` another one."
            ) from error
        entries = listed.get("data")
        names = [str(entry.get("id")) for entry in entries or () if isinstance(entry, dict)]
        if self.model not in names:
            raise JudgeError(
                f"{self.base_url}: serves {', '.join(names) or 'no models'}, not {self.model}; set "
                "`model` to a name that it serves."
            )

    def ask(self, clips: Sequence[Shown], question: Question) -> Answer:
        """Put one question; what may pass is tried again.

        Raises:
            JudgeError: If all tries failed, or the server refuses the request.
        """
        request = self._request(clips, question)
        body = json.dumps(request).encode()
        url = f"{self.base_url}/chat/completions"
        # While the server is known to be down, one try per question is enough to see it return.
        num_tries = 1 if self._is_down else 1 + self.num_retries
        for attempt in range(num_tries):
            try:
                document = exchange(
                    url,
                    body=body,
                    headers=self._headers(),
                    time_limit_seconds=self.time_limit_seconds,
                )
                answer = _answer(document, url, max_tokens=request.get("max_tokens"))
            except Unreachable as error:
                if attempt + 1 == num_tries:
                    self._is_down = True
                    tried = f" after {num_tries} tries" if num_tries > 1 else ""
                    raise JudgeError(
                        f"{clips[0].name}: {question.name!r} stays without an answer{tried}: "
                        f"{error}"
                    ) from error
                time.sleep(
                    wait_seconds(attempt, first_seconds=self.first_wait_seconds, error=error)
                )
            except Refused as error:
                raise JudgeError(
                    f"{clips[0].name}: {question.name!r} was refused: {error}"
                ) from error
            else:
                self._is_down = False
                return answer
        raise AssertionError("every try returns or raises")

    def _request(self, clips: Sequence[Shown], question: Question) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        for name, clip in zip(_CLIP_NAMES, clips, strict=False):
            if len(clips) > 1:
                content.append({"type": "text", "text": f"Video {name}:"})
            video = f"data:video/mp4;base64,{_silent_mp4(clip.path, clip.sha256)}"
            content.append({"type": "video_url", "video_url": {"url": video}})
            sound = _wav(clip)
            if self.audio_form == "input_audio":
                part: dict[str, Any] = {"input_audio": {"data": sound, "format": "wav"}}
            else:
                part = {"audio_url": {"url": f"data:audio/wav;base64,{sound}"}}
            content.append({"type": self.audio_form, **part})
        content.append({"type": "text", "text": question.text})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        request = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        if self.top_logprobs:
            request |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return request | self.extra_body


@functools.lru_cache(maxsize=4)
def _silent_mp4(path: Path, sha256: str) -> str:
    """The picture of a clip for the wire; all its questions share it."""
    return base64.b64encode(with_sound(path, None)).decode()


def _wav(clip: Shown) -> str:
    return base64.b64encode(wav_bytes(clip.waveform, rate_hz=SOUND_RATE_HZ)).decode()


def _answer(document: Mapping[str, Any], url: str, *, max_tokens: int | None) -> Answer:
    """The answer in a chat completion.

    Servers that take a model's thoughts out of its answer give null where it never came to one.

    Raises:
        Unreachable: If it is something else.
    """
    try:
        choice = document["choices"][0]
        text = choice["message"]["content"]
        is_cut_off = choice.get("finish_reason") == "length"
        if text is None and is_cut_off:
            text = ""
        if not isinstance(text, str):
            raise TypeError
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Unreachable(f"{url}: gave JSON that is no chat completion.") from error
    try:
        positions = tuple(
            {token["token"]: float(token["logprob"]) for token in place["top_logprobs"]}
            for place in choice["logprobs"]["content"]
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        # Not every server gives them; the answer counts without.
        positions = ()
    cut_off = f"finish_reason is 'length' at max_tokens {max_tokens}" if is_cut_off else None
    return Answer(text, positions, cut_off)
