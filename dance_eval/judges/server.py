"""A judge behind any OpenAI-compatible server, such as vLLM serving Qwen3-Omni.

    vllm serve Qwen/Qwen3-Omni-30B-A3B-Instruct --max-model-len 32768 \
      --limit-mm-per-prompt '{"video": 2, "audio": 2}'

Picture and sound travel as parts of their own: some servers drop the sound of a video without a
word, or need options for it that change from version to version.
"""

import base64
import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import httpx2  # what openai's client is built on
import openai

from dance_eval.judges.judge import CLIP_NAMES, Answer, Judge, JudgeError, JudgeInput
from dance_eval.judges.questions import Question
from dance_eval.judges.remuxing import with_sound
from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_number

_PROBE_SECONDS = 5.0
_PASSING = (408, 409, 429)  # besides 5xx, what openai's client tries again


@dataclass(kw_only=True, eq=False)
class ServerJudge(Judge):
    """Puts questions by chat completions at temperature 0, with log-probabilities of the tokens.

    What may pass is tried again by openai's client: no or half an answer in time, status 408, 409,
    429 or 5xx, an answer that is no chat completion. It waits half a second before the second try,
    then twice as long each time up to 8 s, or as long as the server asks for.

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
        api_key_variable: Environment variable that holds the key, where one is needed.

    Raises:
        ValueError: If an argument is out of range.
    """

    moved_options: ClassVar[dict[str, str]] = {
        "first_wait_seconds": "leave it out, openai's client waits by itself before it tries again"
    }

    base_url: str = "http://localhost:8000/v1"
    model: str
    audio_form: Literal["input_audio", "audio_url"] = "input_audio"
    top_logprobs: int = 20
    max_tokens: int = 32
    system_prompt: str | None = None
    extra_body: dict[str, Any] | None = None
    concurrency: int = 8
    time_limit_seconds: float = 120.0
    num_retries: int = 5
    api_key_variable: str = "OPENAI_API_KEY"

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url is {self.base_url!r}; it begins with http:// or https://.")
        least = {"top_logprobs": 0, "max_tokens": 1, "concurrency": 1, "num_retries": 0}
        for name, lowest in least.items():
            check_number(name, getattr(self, name), at_least=lowest)
        check_number("time_limit_seconds", self.time_limit_seconds, above=0, may_be_infinite=True)
        self.base_url = self.base_url.rstrip("/")
        self._is_down = False

    @property
    def identity(self) -> dict[str, Any]:
        """Model and request; not the server's address, time limits or retries."""
        return {
            "model": self.model,
            "temperature": 0,
            "audio_form": self.audio_form,
            "top_logprobs": self.top_logprobs,
            "max_tokens": self.max_tokens,
            "system_prompt": self.system_prompt,
            **({"extra_body": self.extra_body} if self.extra_body else {}),
        }

    @functools.cached_property
    def _client(self) -> openai.OpenAI:
        # A server may close a connection that is kept at any time, also under a question's one try.
        transport = _WholeAnswers(limits=httpx2.Limits(max_keepalive_connections=0))
        return openai.OpenAI(
            base_url=self.base_url,
            api_key=os.environ.get(self.api_key_variable) or "none",
            timeout=self.time_limit_seconds,
            max_retries=self.num_retries,
            http_client=httpx2.Client(transport=transport, trust_env=False),
        )

    @property
    def _options(self) -> openai.RequestOptions:
        has_key = bool(os.environ.get(self.api_key_variable))
        return {} if has_key else {"headers": {"Authorization": openai.Omit()}}

    def check(self) -> None:
        """Ask for its models, once; `JudgeError` if it does not answer or serves other ones."""
        limit = min(_PROBE_SECONDS, self.time_limit_seconds)
        client = self._client.with_options(timeout=limit, max_retries=0)
        try:
            response = client.get("/models", cast_to=httpx2.Response, options=self._options)
        except openai.APIError as error:
            raise JudgeError(
                f"The judge cannot be asked: {_reason(error, limit)}; start its server, or give "
                "`base_url` another one."
            ) from error
        try:
            entries = response.json()["data"]
        except (ValueError, KeyError, TypeError):
            entries = None
        names = [str(entry.get("id")) for entry in entries or () if isinstance(entry, dict)]
        if self.model not in names:
            raise JudgeError(
                f"{self.base_url}: serves {', '.join(names) or 'no models'}, not {self.model}; set "
                "`model` to a name that it serves."
            )

    def ask(self, clips: Sequence[JudgeInput], question: Question) -> Answer:
        """Put one question; what may pass is tried again. `JudgeError` without an answer."""
        request = self._request(clips, question)
        # While the server is known to be down, one try per question is enough to see it return.
        num_retries = 0 if self._is_down else self.num_retries
        client = self._client.with_options(max_retries=num_retries)
        try:
            response = client.post(
                "/chat/completions", body=request, cast_to=httpx2.Response, options=self._options
            )
        except openai.APIError as error:
            what = f"{clips[0].name}: {question.name!r}"
            why = _reason(error, self.time_limit_seconds)
            status = error.status_code if isinstance(error, openai.APIStatusError) else 500
            if status < 500 and status not in _PASSING:
                raise JudgeError(f"{what} was refused: {why}.") from error
            self._is_down = True
            tried = f" after {num_retries + 1} tries" if num_retries else ""
            raise JudgeError(f"{what} stays without an answer{tried}: {why}.") from error
        self._is_down = False
        return _answer(response, max_tokens=request.get("max_tokens"))

    def _request(self, clips: Sequence[JudgeInput], question: Question) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        for name, clip in zip(CLIP_NAMES, clips, strict=False):
            if len(clips) > 1:
                content.append({"type": "text", "text": f"Video {name}:"})
            video = f"data:video/mp4;base64,{_silent_mp4(clip.path, clip.sha256)}"
            content.append({"type": "video_url", "video_url": {"url": video}})
            sound = base64.b64encode(clip.wav).decode()
            if self.audio_form == "input_audio":
                part = {"data": sound, "format": "wav"}
            else:
                part = {"url": f"data:audio/wav;base64,{sound}"}
            content.append({"type": self.audio_form, self.audio_form: part})
        content.append({"type": "text", "text": question.text})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        request: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        if self.top_logprobs:
            request |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return request | (self.extra_body or {})


class _WholeAnswers(httpx2.HTTPTransport):
    """Fails for an answer that is not whole within the time limit, or not what was asked for.

    The client then tries again; by itself it limits single reads only, which a server that sends a
    byte now and then never exceeds, and passes on whatever comes with status 200.
    """

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        end = time.monotonic() + request.extensions["timeout"]["read"]
        response = super().handle_request(request)
        pieces = []
        try:
            for piece in response.iter_raw():
                pieces.append(piece)
                if time.monotonic() > end:
                    raise httpx2.ReadTimeout("not whole in time", request=request)
        finally:
            response.close()
        whole = httpx2.Response(
            response.status_code, headers=response.headers, content=b"".join(pieces)
        )
        if whole.is_success and request.method == "POST":
            _answer(whole)
        return whole


@functools.lru_cache(maxsize=4)
def _silent_mp4(path: Path, sha256: str) -> str:
    """The picture of a clip for the wire; all its questions share it."""
    return base64.b64encode(with_sound(path, None)).decode()


def _answer(response: httpx2.Response, *, max_tokens: int | None = None) -> Answer:
    """The answer in a chat completion; `httpx2.DecodingError` if it is something else.

    Servers that take a model's thoughts out of its answer give null where it never came to one.
    """
    try:
        choice = response.json()["choices"][0]
        text = choice["message"]["content"]
        is_cut_off = choice.get("finish_reason") == "length"
        if text is None and is_cut_off:
            text = ""
        if not isinstance(text, str):
            raise TypeError
    except ValueError as error:
        raise httpx2.DecodingError("what came is no JSON") from error
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise httpx2.DecodingError("what came is JSON, but no chat completion") from error
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


def _reason(error: openai.APIError, limit_seconds: float) -> str:
    """What went wrong, without a full stop."""
    url = error.request.url
    if isinstance(error, openai.APIStatusError):
        said = " ".join(error.response.text.split())[:200] or error.response.reason_phrase
        return f"{url}: answers with status {error.status_code} ({said})"
    if isinstance(error, openai.APITimeoutError):
        return f"{url}: gave no answer within {limit_seconds:g} s"
    return f"{url}: gave no answer ({error.__cause__})"
