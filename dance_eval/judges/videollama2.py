"""The authors' judge, VideoLLaMA 2.1-AV, in an environment of its own.

`dance_eval.workers.videollama2` says how to make that environment.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dance_eval.external_worker import ExternalWorker, WorkerError
from dance_eval.judges.judge import SOUND_RATE_HZ, Answer, Judge, JudgeError, JudgeInput
from dance_eval.judges.questions import Question
from dance_eval.judges.remuxing import with_sound
from musicinfuser.atomic_files import atomic_file

_PROBE = "import importlib.util as u, sys; sys.exit(u.find_spec('videollama2') is None)"
_PROBE_SECONDS = 60.0


class VideoLLaMA2Judge(Judge):
    """Puts questions to a worker, one after the other; its answers have no probabilities.

    The model takes 8 pieces of 2 s spread over the track and 16 frames (authors' code), so its
    sound and its picture share no clock.

    Args:
        python: Of the environment that holds VideoLLaMA 2.
        model: Hub id or folder.
        media: Folder for clips with the sound they are judged with; it can be deleted at any time.
        start_limit_seconds: For loading the weights.
        time_limit_seconds: For each question.
    """

    def __init__(
        self,
        *,
        python: Path,
        model: str = "DAMO-NLP-SG/VideoLLaMA2.1-7B-AV",
        media: Path = Path("runs/judge_media"),
        start_limit_seconds: float = 1800.0,
        time_limit_seconds: float = 600.0,
    ) -> None:
        self.python = Path(python)
        self.model = model
        self.media = Path(media)
        self._worker = ExternalWorker(
            [str(python), "-m", "dance_eval.workers.videollama2", "--model", model],
            name="VideoLLaMA 2",
            start_limit_seconds=start_limit_seconds,
            time_limit_seconds=time_limit_seconds,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The model; how it is asked is fixed."""
        return {"videollama2": self.model}

    def check(self) -> None:
        """`JudgeError` unless the environment has the package; the model is not loaded."""
        command = [str(self.python), "-c", _PROBE]
        try:
            subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise JudgeError(
                f"The judge cannot be asked: {self.python} runs no Python that has videollama2; "
                "make its environment as dance_eval/workers/videollama2.py says, and set "
                "`python` to it."
            ) from error

    def ask(self, clips: Sequence[JudgeInput], question: Question) -> Answer:
        """Put one question about one clip; `JudgeError` for two, and if no answer came."""
        if len(clips) != 1:
            raise JudgeError("VideoLLaMA 2 takes one clip at a time; compare with another judge.")
        [clip] = clips
        path = self.media / f"{clip.sha256[:32]}_{clip.sound_sha256[:32]}.mp4"
        if not path.is_file():
            content = with_sound(clip.path, clip.waveform, rate_hz=SOUND_RATE_HZ)
            with atomic_file(path) as temporary:
                temporary.write_bytes(content)
        try:
            # The worker may run in another folder.
            request = {"video": str(path.resolve()), "question": question.text}
            text = self._worker.ask(request).get("text")
        except WorkerError as error:
            raise JudgeError(f"{clip.name}: {question.name!r}: {error}") from error
        if not isinstance(text, str):
            raise JudgeError(f"{clip.name}: {question.name!r}: the worker gave no text.")
        return Answer(text)
