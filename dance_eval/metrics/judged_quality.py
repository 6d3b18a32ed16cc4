"""The paper's own metric: a video-language model answers the eleven questions of Table 10."""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dance_eval.judges.answer_cache import CachedJudge
from dance_eval.judges.judge import SOUND_RATE_HZ, Answer, Judge, JudgeInput
from dance_eval.judges.questions import (
    BEAT,
    GROUPS,
    MUSIC_QUESTIONS,
    PROMPT,
    Question,
    Wording,
    averages,
    key_of,
    questions,
)
from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry, content_digest
from dance_eval.metrics.judge_controls import (
    CONTROLS,
    control_findings,
    control_sentences,
    fitted_sound,
    half_beat_seconds,
    mismatched_audio,
    shifted_sound,
)
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import file_digest
from musicinfuser.media.audio import fit_length, read_audio

_NAMES = tuple(key_of(name) for names in GROUPS.values() for name in names)
_AVERAGES = (*(key_of(group) for group in GROUPS), "overall")
_PROMPT = {*(key_of(name) for name in GROUPS[PROMPT]), key_of(PROMPT)}
_CONTROLLED = tuple(
    f"{name}_{control}"
    for name in (*map(key_of, MUSIC_QUESTIONS), f"expected_{key_of(BEAT)}")
    for control in CONTROLS
)
_OTHER_RULES = (
    *(f"strict_{name}" for name in _AVERAGES),
    *(f"expected_{name}" for name in (key_of(BEAT), *_AVERAGES)),
)
_COUNTS = ("num_answers", "num_strict", "num_cut_off")
_UNREAD = "num_unread_controls"


class JudgedQuality(ClipMetric):
    """Scores of 0 to 10 that a judge gives a clip, the paper's averages, and controls.

    Values per clip:
        style_alignment, beat_alignment, body_representation, movement_realism,
        choreography_complexity; imaging_quality, aesthetic_quality, overall_consistency;
        style_capture, creative_interpretation, overall_prompt_satisfaction: Scores by the authors'
            rule, in [0, 10]; those about the prompt only where there is one.
        dance_quality, video_quality, prompt_alignment, overall: Averages as in the paper.
        strict_dance_quality and so on: The averages by the stricter rule, of clips where it finds a
            number in each answer.
        expected_beat_alignment, expected_dance_quality and so on: From the probabilities of digits,
            where the judge gives them.
        beat_alignment_<control>, style_alignment_<control>, expected_beat_alignment_<control>:
            Scores with other sound: ``other_track`` (mismatched audio, that of another clip),
            ``silence``, ``half_beat`` (the clip's own music, moved in a circle by half a beat).
        num_answers, num_strict, num_cut_off: How many answers about the clip with its own sound
            there are, how many the stricter rule reads, how many were cut off.
        num_unread_controls: How many answers about other sound hold no score, if any; the next
            command asks for them again.

    The authors' rule takes the first number of an answer, also one out of a model's thoughts:
    "<think>I see 3 people</think>8" gives 3. It is the default since it is what the paper's numbers
    are made with; the line of counts that is printed says how many answers the stricter rule reads.

    The cache holds every answer with its score by each rule. A clip of which the authors' rule
    cannot read all answers has no valid run and is left out (authors' code): it counts as failed
    and is named with what the judge said.

    Args:
        judge: Who is asked.
        cache: Folder of the answers, word for word; they are written as they come.
        wording: ``"paper"`` asks Table 10 to the letter. ``"authors"`` asks what their code for
            VideoLLaMA 2 asks, with "0-10" in the eight questions about dance and video.
        controls: Whether to ask about music with other sound, too. Without, nobody knows whether
            the judge responds to audio.
    """

    # It asks many questions at once by itself; a judge on a GPU is there once.
    in_workers = False
    value_names = (*_NAMES, *_AVERAGES, *_CONTROLLED, *_OTHER_RULES, *_COUNTS, _UNREAD)
    # Counts are absent from files of earlier versions.
    optional_names = frozenset({*_PROMPT, *_CONTROLLED, *_OTHER_RULES, *_COUNTS, _UNREAD})
    provisional_names = frozenset({_UNREAD})

    def __init__(
        self,
        *,
        judge: Judge,
        cache: Path = Path("runs/judge_answers"),
        wording: Wording = "paper",
        controls: bool = True,
        name: str = "judge",
    ) -> None:
        super().__init__(name=name)
        questions(None, wording=wording)
        self.judge = CachedJudge(judge, cache)
        self.wording = wording
        self.controls = controls
        self._mismatched: dict[Path, Path] = {}

    def fingerprints(self) -> dict[str, str]:
        """Everything that the judge's answers depend on."""
        text = json.dumps(self.judge.identity, sort_keys=True)
        return {"judge": hashlib.sha256(text.encode()).hexdigest()}

    def prepare(self, entries: Sequence[ClipEntry], *, seed: int) -> None:
        """See which clip gets the audio of which other one."""
        self._mismatched = mismatched_audio(entries, seed=seed) if self.controls else {}

    def check(self) -> None:
        """`JudgeError` if the judge is not there."""
        self.judge.check()

    def clip_key(self, entry: ClipEntry) -> Any:
        """The clip with the mismatched audio."""
        return content_digest(self._mismatched.get(entry.path))

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """Ask everything about one clip at once, as far as the judge takes it.

        Raises:
            UserError: If the clip has no file or no sound, the judge fails, or an answer holds no
                score.
        """
        if clip.path is None:
            raise UserError(f"{clip.name}: a judge needs the clip's file.")
        if clip.waveform is None:
            raise UserError(f"{clip.path}: has no sound, which a judge of dance needs.")
        asked = questions(clip.prompt, wording=self.wording)
        sounds = self._shown(clip)
        own = next(sounds)
        calls = [(own, question) for question in asked]
        for other in sounds:
            calls += [(other, q) for q in asked if q.name in MUSIC_QUESTIONS]
        answers = self.judge.ask_all([((shown,), question) for shown, question in calls])
        # The questions about the clip with its own sound come first.
        run = {q.name: answer for q, answer in zip(asked, answers, strict=False)}
        values, unread = self._run_values(run, clip), 0
        for (shown, question), answer in list(zip(calls, answers, strict=True))[len(asked) :]:
            values |= _controlled(question, shown.sound, answer)
            unread += answer.score is None
        return values | ({_UNREAD: float(unread)} if unread else {})

    def _run_values(self, run: dict[str, Answer], clip: ScoredClip) -> dict[str, float]:
        """Scores and averages of the answers about the clip with its own sound."""
        rules = {
            "": {name: answer.score for name, answer in run.items()},
            "strict_": {name: answer.strict_score for name, answer in run.items()},
            "expected_": {name: answer.expected_score for name, answer in run.items()},
        }
        if unread := [name for name, score in rules[""].items() if score is None]:
            first = run[unread[0]]
            said = " ".join(first.text.split())[:80]
            why = f" ({first.cut_off}; raise it)" if first.cut_off else ""
            raise UserError(
                f"{clip.path}: {len(unread)} of {len(run)} answers hold no score from 0 to 10, the "
                f"first that to {unread[0]!r}: {said!r}{why}."
            )
        values: dict[str, float] = {
            "num_answers": float(len(run)),
            "num_strict": float(sum(score is not None for score in rules["strict_"].values())),
            "num_cut_off": float(sum(answer.cut_off is not None for answer in run.values())),
        }
        for prefix, scores in rules.items():
            found = {name: score for name, score in scores.items() if score is not None}
            values |= {f"{prefix}{key_of(name)}": score for name, score in found.items()}
            values |= {f"{prefix}{key}": mean for key, mean in averages(found).items()}
        return {name: value for name, value in values.items() if name in self.value_names}

    def _shown(self, clip: ScoredClip) -> Iterator[JudgeInput]:
        """The clip with its own sound, then with those of the controls that can be had."""
        path = clip.path
        assert path is not None
        show = functools.partial(JudgeInput, path, file_digest(path), name=clip.name)
        num_samples = max(round(clip.duration_seconds * SOUND_RATE_HZ), 1)
        sound = read_audio(path, rate_hz=SOUND_RATE_HZ)
        own = fit_length(sound, num_samples)
        yield show(waveform=own)
        if not self.controls:
            return
        yield show(waveform=own * 0, sound="silence")
        seconds: float | None = None
        with suppress(UserError):  # the beats of the music cannot be had
            seconds = half_beat_seconds(clip.music_beats())
        if seconds is not None:
            moved = shifted_sound(own, seconds=seconds, rate_hz=SOUND_RATE_HZ)
            yield show(waveform=moved, sound="half_beat")
        if (other := self._mismatched.get(path)) is not None:
            sound = fitted_sound(read_audio(other, rate_hz=SOUND_RATE_HZ), num_samples)
            yield show(waveform=sound, sound="other_track")

    def findings(
        self, records: Sequence[dict[str, Any]], *, seed: int, confidence: float
    ) -> dict[str, Any] | None:
        """Whether the judge responds to audio, by its beat score with other sounds.

        Returns:
            What `control_findings` gives, for the scores and under ``"expected"`` for the expected
            ones, and sentences under ``"printed"``, the first on how answers were read.
        """
        reading = reading_sentences(records, metric=self.name)
        if not self.controls:
            unsure = "run without controls; nobody knows whether the judge responds to audio."
            unknown: dict[str, Any] = {"ignores_audio": None, "ignored": [], "controls": {}}
            return unknown | {"printed": [*reading, f"{self.name}: {unsure}"]}
        value = key_of(BEAT)
        compare = functools.partial(
            control_findings, records, metric=self.name, seed=seed, confidence=confidence
        )
        found = compare(value=value)
        found["expected"] = compare(value=f"expected_{value}")
        found["printed"] = reading + control_sentences(found, metric=self.name, value=value)
        return found


def reading_sentences(records: Sequence[dict[str, Any]], *, metric: str) -> list[str]:
    """How many answers each rule reads, and how many were cut off; of clips that have counts."""
    counts = [record["values"].get(metric, {}) for record in records]
    answers, strict, cut_off = (
        int(sum(count.get(name, 0) for count in counts)) for name in _COUNTS
    )
    if not answers:
        return []
    sentence = (
        f"{metric}: scores are the first number of each answer (the authors' rule); of {answers} "
        f"answers, {strict} are nothing but a number (the stricter rule)"
    )
    if strict < answers:
        sentence += ", the others' first number may come out of thoughts or a range"
    if cut_off:
        sentence += f"; {cut_off} were cut off by the limit of tokens, raise it"
    if unread := int(sum(count.get(_UNREAD, 0) for count in counts)):
        sentence += f"; {unread} more, with other sound, hold no score and are asked for next time"
    return [f"{sentence}."]


def _controlled(question: Question, control: str, answer: Answer) -> dict[str, float]:
    """The values of an answer about a clip with another sound."""
    scores = {
        f"{question.key}_{control}": answer.score,
        f"expected_{question.key}_{control}": answer.expected_score,
    }
    return {
        name: score for name, score in scores.items() if score is not None and name in _CONTROLLED
    }
