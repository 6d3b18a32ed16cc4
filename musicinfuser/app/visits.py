"""What the page does when a visitor acts, without the page: generators of what to show."""

import base64
import html
import math
import queue
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from musicinfuser.app.sentences import sentence
from musicinfuser.app.song import clock, excerpt, song_seconds
from musicinfuser.app.studio import StoppedError, Studio, Wish, num_frames_of
from musicinfuser.errors import UserError
from musicinfuser.pipelines.conditions import FPS

MAX_STEPS = 128


@dataclass(frozen=True)
class Shown:
    """What the page shows now."""

    status: str
    """HTML."""
    with_music: str | None = None
    """An mp4."""
    without_music: str | None = None
    """An mp4."""


class Visits:
    """Visitors of one studio, each known by a name; who is not served yet waits."""

    def __init__(self, studio: Studio, *, max_seconds: float) -> None:
        """Serve a studio.

        Args:
            studio: What generates.
            max_seconds: Longest video.
        """
        self.studio, self.max_seconds = studio, max_seconds
        self._wanting: set[str] = set()

    def look(self, song: str | None, start_seconds: float, seconds: float) -> str:
        """A player of the part of an uploaded song that will be danced to, or what is wrong."""
        if song is None:
            return ""
        try:
            self._check_length(seconds)
            span = num_frames_of(seconds) / FPS
            whole = song_seconds(song, start_seconds=start_seconds or 0.0, span_seconds=span)
            part = excerpt(song, start_seconds=start_seconds or 0.0, span_seconds=span)
        except Exception as error:
            return problem(sentence(error, song=song))
        return player(part, f"{Path(song).name}, {clock(whole)}. This part of it:")

    def begin(self, visitor: str) -> None:
        """A visitor asks for a video; `generate` ends at once for one who did not."""
        self._wanting.add(visitor)

    def stop(self, visitor: str) -> None:
        """End what a visitor asked for, after the step in work, also if it waits its turn."""
        self._wanting.discard(visitor)

    def generate(self, wish: Wish, visitor: str, *, compare: bool) -> Iterator[Shown]:
        """Make a video and, if asked for, the same one without music.

        The files are gone after the last state.

        Args:
            wish: What to make; its song may be missing.
            visitor: Who may stop it.
            compare: Whether to make the second video.
        """
        made: dict[bool, str] = {}
        with tempfile.TemporaryDirectory() as folder:
            try:
                self._check(wish)
                for hears in (True, False) if compare else (True,):
                    doing = "With music" if hears else "The same without music"
                    for state in self._steps(wish, Path(folder), visitor, hears=hears):
                        if isinstance(state, Path):
                            made[hears] = str(state)
                            continue
                        bar = progress(doing, state, wish.num_steps)
                        yield Shown(bar, made.get(True), made.get(False))
            except StoppedError:
                yield Shown(note("Stopped."), made.get(True), made.get(False))
            except Exception as error:
                text = sentence(error, song=wish.song, offload=self.studio.offload)
                yield Shown(problem(text), made.get(True), made.get(False))
            else:
                length = f"{num_frames_of(wish.seconds) / FPS:.1f} s"
                text = f"Done: {length}, seed {wish.seed}, {wish.num_steps} steps."
                if compare:
                    text += " Play the first one; the other runs with it."
                if cut := self.studio.cut_note(wish.prompt):
                    text += f" The prompt {cut}"
                yield Shown(note(text), made.get(True), made.get(False))
            finally:
                self._wanting.discard(visitor)

    def _steps(
        self, wish: Wish, folder: Path, visitor: str, *, hears: bool
    ) -> Iterator[int | Path]:
        """Numbers of steps done, then the file; computed in a thread of its own."""
        told: queue.SimpleQueue[int | Path | BaseException] = queue.SimpleQueue()
        has_left = threading.Event()

        def on_step(step: int) -> None:
            if has_left.is_set() or visitor not in self._wanting:
                raise StoppedError
            told.put(step)

        def work() -> None:
            try:
                on_step(0)
                told.put(self.studio.dance(wish, folder, hears=hears, on_step=on_step))
            except BaseException as error:
                told.put(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            while True:
                state = told.get()
                if isinstance(state, BaseException):
                    raise state
                yield state
                if isinstance(state, Path):
                    return
        finally:
            # Also where the page was closed: nobody waits for this video any more.
            has_left.set()
            worker.join()

    def _check(self, wish: Wish) -> None:
        if not wish.song:
            raise UserError("drop a song first.")
        if not wish.prompt.strip():
            raise UserError("write a prompt first, or take one of the examples.")
        if wish.seed < 0:
            raise UserError(f"the seed is {wish.seed}; give 0 or more.")
        if not 1 <= wish.num_steps <= MAX_STEPS:
            raise UserError(f"{wish.num_steps} steps were asked for; give 1 to {MAX_STEPS}.")
        self._check_length(wish.seconds)
        span = num_frames_of(wish.seconds) / FPS
        song_seconds(wish.song, start_seconds=wish.start_seconds, span_seconds=span)

    def _check_length(self, seconds: float) -> None:
        if not (math.isfinite(seconds) and 0 < seconds <= self.max_seconds):
            raise UserError(
                f"{seconds:g} s were asked for; videos here last up to {self.max_seconds:g} s."
            )


def note(text: str) -> str:
    """HTML of a message."""
    return f'<div class="message" role="status">{html.escape(text)}</div>'


def problem(text: str) -> str:
    """HTML of a message that something is wrong."""
    return f'<div class="message problem" role="alert">{html.escape(text)}</div>'


def progress(doing: str, step: int, num_steps: int) -> str:
    """HTML of a progress bar; after the last step the frames are decoded."""
    what = f"step {step} of {num_steps}" if step < num_steps else "decoding"
    return (
        f'<div class="message" role="status">{doing}: {what}'
        f'<progress max="{num_steps}" value="{step}"></progress></div>'
    )


def player(wav: bytes, label: str) -> str:
    """HTML of a player for a short sound, with the sound in it."""
    sound = base64.b64encode(wav).decode()
    return (
        f'<div id="song-part" class="message">{html.escape(label)}'
        f'<audio controls src="data:audio/wav;base64,{sound}"></audio></div>'
    )
