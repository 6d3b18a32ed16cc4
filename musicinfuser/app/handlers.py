"""What the page does when a visitor acts, without the page: generators of what to show."""

import base64
import html
import math
import queue
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from musicinfuser.app.generator import FormInput, Generator, StoppedError
from musicinfuser.errors import UserError, printable, user_error
from musicinfuser.generation import OUTPUT_RATE_HZ
from musicinfuser.media.audio import SILENCE_DBFS, loudness_dbfs, read_audio, wav_bytes
from musicinfuser.memory.out_of_memory import OutOfMemoryError
from musicinfuser.networks.text_tokens import cut_note

MAX_STEPS = 128
# At which songs are read to look at their length and loudness.
_RATE_HZ = 16_000
MAX_SONG_SECONDS = 15 * 60
"""A small file can hold hours of sound, which would fill the memory."""
UNKNOWN = "something went wrong that is not your doing; the terminal of the program says what."


@dataclass(frozen=True)
class PageState:
    """What the page shows now."""

    status: str
    """HTML."""
    with_music: str | None = None
    """An mp4."""
    without_music: str | None = None
    """An mp4."""


class Handlers:
    """What visitors of one generator do, each known by a name; who is not served yet waits."""

    def __init__(self, generator: Generator, *, max_seconds: float) -> None:
        """Serve a generator; videos last at most ``max_seconds``."""
        self.generator, self.max_seconds = generator, max_seconds
        self._wanting: set[str] = set()

    def preview(self, song: str | None, start_seconds: float, seconds: float) -> str:
        """A player of the part of an uploaded song that the video is for, or what is wrong."""
        if song is None:
            return ""
        try:
            self._check_length(seconds)
            start, span = start_seconds or 0.0, self._span(seconds)
            whole = song_seconds(song, start_seconds=start, span_seconds=span)
            rate = OUTPUT_RATE_HZ
            sound = read_audio(song, rate_hz=rate, start_seconds=start, duration_seconds=span)
            wav = base64.b64encode(wav_bytes(sound, rate_hz=rate)).decode()
        except Exception as error:
            return note(error_message(error, song=song), is_problem=True)
        label = html.escape(f"{Path(song).name}, {_clock(whole)}. This part of it:")
        return (
            f'<div id="song-part" class="message">{label}'
            f'<audio controls src="data:audio/wav;base64,{wav}"></audio></div>'
        )

    def begin(self, visitor: str) -> None:
        """A visitor asks for a video; `generate` ends at once for one who did not."""
        self._wanting.add(visitor)

    def stop(self, visitor: str) -> None:
        """End what a visitor asked for, after the step in work, also if it waits its turn."""
        self._wanting.discard(visitor)

    def generate(self, form: FormInput, visitor: str, *, compare: bool) -> Iterator[PageState]:
        """Make a video and, with ``compare``, the same one without music; the visitor may stop it.

        The files are gone after the last state. The form's song may be missing.
        """
        shown = PageState("")
        with tempfile.TemporaryDirectory() as folder:
            try:
                self._check(form)
                for made in ("with_music", "without_music") if compare else ("with_music",):
                    with_music = made == "with_music"
                    doing = "With music" if with_music else "The same without music"
                    for state in self._steps(form, Path(folder), visitor, with_music=with_music):
                        if isinstance(state, Path):
                            shown = replace(shown, **{made: str(state)})
                        else:
                            shown = replace(shown, status=progress(doing, state, form.num_steps))
                            yield shown
            except StoppedError:
                yield replace(shown, status=note("Stopped."))
            except Exception as error:
                text = error_message(
                    error, song=form.song, image=form.image, offload=self.generator.offload
                )
                yield replace(shown, status=note(text, is_problem=True))
            else:
                length = f"{self._span(form.seconds):.1f} s"
                text = f"Done: {length}, seed {form.seed}, {form.num_steps} steps."
                if compare:
                    text += " Play the first one; the other runs with it."
                if cut := self._cut_note(form.prompt):
                    text += f" The prompt {cut}"
                yield replace(shown, status=note(text))
            finally:
                self._wanting.discard(visitor)

    def _steps(
        self, form: FormInput, folder: Path, visitor: str, *, with_music: bool
    ) -> Iterator[int | Path]:
        """Numbers of steps done, then the file; computed in a thread of its own."""
        states: queue.SimpleQueue[int | Path | BaseException] = queue.SimpleQueue()
        has_left = threading.Event()

        def on_step(step: int) -> None:
            if has_left.is_set() or visitor not in self._wanting:
                raise StoppedError
            states.put(step)

        def work() -> None:
            try:
                on_step(0)
                generate = self.generator.generate
                states.put(generate(form, folder, with_music=with_music, on_step=on_step))
            except BaseException as error:
                states.put(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            while isinstance(state := states.get(), int):
                yield state
            if isinstance(state, BaseException):
                raise state
            yield state
        finally:
            # Also where the page was closed: nobody waits for this video any more.
            has_left.set()
            worker.join()

    def _check(self, form: FormInput) -> None:
        if not form.song:
            raise UserError("drop a song first.")
        if not form.prompt.strip():
            raise UserError("write a prompt first, or take one of the examples.")
        if form.seed < 0:
            raise UserError(f"the seed is {form.seed}; give 0 or more.")
        if not 1 <= form.num_steps <= MAX_STEPS:
            raise UserError(f"{form.num_steps} steps were asked for; give 1 to {MAX_STEPS}.")
        self._check_length(form.seconds)
        span = self._span(form.seconds)
        song_seconds(form.song, start_seconds=form.start_seconds, span_seconds=span)

    def _span(self, seconds: float) -> float:
        """Seconds of a video that was asked to last so long."""
        return self.generator.num_frames(seconds) / self.generator.fps

    def _cut_note(self, prompt: str) -> str | None:
        pipeline = self.generator.pipeline
        max_tokens = pipeline.kind.usual.text_tokens
        return cut_note(pipeline.kind.cleaned(prompt), pipeline.tokenizer, max_tokens=max_tokens)

    def _check_length(self, seconds: float) -> None:
        if not (math.isfinite(seconds) and 0 < seconds <= self.max_seconds):
            raise UserError(
                f"{seconds:g} s were asked for; videos here last up to {self.max_seconds:g} s."
            )


def song_seconds(path: str, *, start_seconds: float, span_seconds: float) -> float:
    """How long a song is, once it is clear that there is sound in the span from the start on.

    Raises:
        UserError: It cannot be read, is too long, or has silence or nothing in that part.
    """
    name = printable(Path(path).name)
    if not 0 <= start_seconds < MAX_SONG_SECONDS:
        raise UserError(f"the start is {start_seconds:g} s; give 0 or more.")
    sound = read_audio(path, rate_hz=_RATE_HZ, duration_seconds=MAX_SONG_SECONDS + 1.0)
    seconds = len(sound) / _RATE_HZ
    if seconds > MAX_SONG_SECONDS:
        raise UserError(
            f"{name} is longer than {_clock(MAX_SONG_SECONDS)}; cut the part you want out of it."
        )
    if start_seconds + span_seconds > seconds + 0.001:
        left = f"{max(seconds - start_seconds, 0):.1f} s of sound"
        left += f" from {start_seconds:g} s on" if start_seconds else ""
        advice = "start earlier or make it shorter." if start_seconds else "make it shorter."
        raise UserError(
            f"{name} has {left}, but the video is to last {span_seconds:.1f} s; {advice}"
        )
    end_seconds = start_seconds + span_seconds
    part = sound[round(start_seconds * _RATE_HZ) : round(end_seconds * _RATE_HZ)]
    if loudness_dbfs(part) < SILENCE_DBFS:
        raise UserError(
            f"{name} is silent from {start_seconds:g} s to {end_seconds:.1f} s; choose another "
            "start."
        )
    return seconds


def error_message(
    error: Exception,
    *,
    song: str | None = None,
    image: str | None = None,
    offload: str = "none",
) -> str:
    """What a visitor reads of an error; one that is no `UserError` is printed in the terminal.

    The uploaded song and image are called by their own names without the server's folders;
    ``offload`` is what the page was started with.
    """
    found = user_error(error)
    if isinstance(found, OutOfMemoryError):
        more = {"none": "--offload model", "model": "--offload group"}.get(offload)
        more = "--vae_tiling" if found.doing.startswith("decoding") else more
        text = f"The device's memory is too small for {found.doing}: ask for a shorter video"
        text += f", or start the page with {more}." if more else "."
    elif found is not None:
        text = str(found)
    else:
        traceback.print_exception(error, file=sys.stderr)
        text = UNKNOWN
    names = {path: Path(path).name for path in (song, image) if path}
    for path, name in names.items():
        text = text.replace(path, name)
    is_name_first = any(text.startswith(name) for name in names.values())
    return text if is_name_first else text[:1].upper() + text[1:]


def _clock(seconds: float) -> str:
    """``3:05`` for 185 seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def note(text: str, *, is_problem: bool = False) -> str:
    """HTML of a message, also of one that something is wrong."""
    kind = 'class="message problem" role="alert"' if is_problem else 'class="message" role="status"'
    return f"<div {kind}>{html.escape(text)}</div>"


def progress(doing: str, step: int, num_steps: int) -> str:
    """HTML of a progress bar; after the last step the frames are decoded."""
    what = f"step {step} of {num_steps}" if step < num_steps else "decoding"
    bar = f'{doing}: {what}<progress max="{num_steps}" value="{step}"></progress>'
    return f'<div class="message" role="status">{bar}</div>'
