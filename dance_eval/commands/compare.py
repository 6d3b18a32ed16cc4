"""`evaluate.py compare`: two systems, clip by clip, by a judge that sees both at once.

Fields of comparison.json:
    systems: Names of the two; rates are those of the first.
    questions: {question: {win_rate, first_place_rate: {mean, low, high}, n, num_unread, biased}};
        a pair counts 1, 0.5 or 0 by its two orders. `first_place_rate` is how often the clip that
        is shown first is preferred; `biased` is whether its interval leaves out 0.5, null where
        there is none.
    pairs: {files, track, track_offset_seconds, prompt, answers: {question: [text, text in the other
        order]}, cut_off: {question: why an answer ends before its end}, failure}.
    unmatched: Clips of either system that the other has no counterpart for.
    judge, seed, confidence: The settings.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import OpenUnitInterval
from tqdm import tqdm

from dance_eval.commands.options import read_metrics
from dance_eval.judges.judge import SOUND_RATE_HZ, Answer, Judge, JudgeError, JudgeInput
from dance_eval.judges.questions import Question
from dance_eval.loading import EvaluationError, collect_clips
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.judged_quality import JudgedQuality
from dance_eval.metrics.matching import Pieces, matched
from musicinfuser.atomic_files import require_writable, write_text
from musicinfuser.errors import UserError, WriteError
from musicinfuser.fingerprint import file_digest
from musicinfuser.media.audio import read_audio
from musicinfuser.option_parser import OptionParser

_LETTER = re.compile(r"(?:video\s+)?([AB])\.?", re.IGNORECASE)


def choice_of(text: str) -> Literal["first", "second"] | None:
    """Which of the two an answer names, if it does nothing else: "A", "**B**", "Video A."."""
    found = _LETTER.fullmatch(text.replace("*", "").strip())
    if found is None:
        return None
    return "first" if found.group(1).upper() == "A" else "second"


PAIR_QUESTIONS = tuple(
    Question(name, f"{text} Output only the letter A or B.", choice_of)
    for name, text in (
        ("Visual Quality", "Which video has higher visual quality?"),
        ("Music Alignment", "Which video's dance aligns better with the music?"),
        ("Motion Realism", "Which video's motion is more realistic?"),
        ("Dance Complexity", "Which video's dance is more complex?"),
    )
)
"""The four questions of the paper's user study (section 5); the last sentence is ours."""


@dataclass(frozen=True)
class PairAnswer:
    """Both answers about two clips: with the first system's clip shown first, and shown second."""

    question: Question
    forward: Answer
    backward: Answer

    @property
    def wins(self) -> float | None:
        """Share of the two answers that prefer the first system; None if one cannot be read."""
        choices = choice_of(self.forward.text), choice_of(self.backward.text)
        if None in choices:
            return None
        return ((choices[0] == "first") + (choices[1] == "second")) / 2

    @property
    def first_places(self) -> float | None:
        """Share of the two answers that prefer what is shown first; 0.5 is without bias."""
        choices = choice_of(self.forward.text), choice_of(self.backward.text)
        return None if None in choices else choices.count("first") / 2


def parser() -> ArgumentParser:
    """The options of `compare`."""
    options = OptionParser(description="Let a judge compare two systems, in both orders.")
    options.add_argument("folders", nargs="+", type=Path, help="As for `score`, of two systems.")
    options.add_argument(
        "--metrics", type=Path, required=True, help="As for `score`; with a judge."
    )
    options.add_argument("--output", type=Path, default=Path("comparison.json"))
    options.add_argument("--seed", type=int, default=0, help="Of the intervals.")
    options.add_argument("--confidence", type=OpenUnitInterval, default=0.95)
    return options


def run(settings: Namespace) -> None:
    """Two systems' clips of the same cells, by the first judge among the metrics.

    `UserError` also if there is no judge, or nothing could be compared.
    """
    metrics, _ = read_metrics(settings.metrics)
    judged = next((metric for metric in metrics if isinstance(metric, JudgedQuality)), None)
    if judged is None:
        raise EvaluationError(f"{settings.metrics}: holds no JudgedQuality to take a judge from.")
    entries, _ = collect_clips(settings.folders)
    require_writable(settings.output.parent, option="--output")
    options = {"seed": settings.seed, "confidence": settings.confidence}
    try:
        document = compare_systems(entries, judged.judge, settings.output, **options)
    except JudgeError as error:
        raise EvaluationError(str(error)) from error
    for line in comparison_lines(document):
        print(line)


def matched_pairs(
    entries: Sequence[ClipEntry],
) -> tuple[list[tuple[ClipEntry, ClipEntry]], list[ClipEntry]]:
    """Clips of two systems for the same music, start, prompt and seed, as `matched` pairs them.

    Returns:
        The pairs, the first system's clip first, and the clips without a counterpart.

    Raises:
        EvaluationError: If there are not two systems, or nothing matches.
    """
    usable = [entry for entry in entries if entry.problem is None]
    systems = list(dict.fromkeys(entry.system for entry in usable))
    if len(systems) != 2:
        raise EvaluationError(
            f"The folders hold the systems {', '.join(systems) or 'none'}; a comparison takes two."
        )
    found, left = matched(usable, Pieces(usable))
    alone = [entry for entry in entries if entry.problem is not None]
    alone += [entry for entry, _ in left]
    if not found:
        raise EvaluationError(
            f"{systems[0]} and {systems[1]} share no track, start, prompt and seed; "
            "give folders that were generated for the same list of requests."
        )
    return [(pair.first, pair.second) for pair in found], alone


def compare_systems(
    entries: Sequence[ClipEntry], judge: Judge, output: Path, *, seed: int, confidence: float
) -> dict[str, Any]:
    """Compare two systems cell by cell, in both orders, and write comparison.json.

    Answers that a cached judge has are not asked for again, so a stopped run goes on. `UserError`
    if nothing can be compared, or the judge cannot be asked at all.
    """
    pairs, alone = matched_pairs(entries)
    judge.check()
    records: list[dict[str, Any]] = []
    answered: list[list[PairAnswer]] = []
    for first, second in tqdm(pairs, unit="pair", desc="compare"):
        record = {
            "files": [str(first.path), str(second.path)],
            "track": first.track,
            "track_offset_seconds": first.track_offset_seconds,
            "prompt": first.prompt,
            "answers": {},
            "cut_off": {},
            "failure": None,
        }
        records.append(record)
        try:
            clips = _with_own_sound(first), _with_own_sound(second)
            orders = clips, clips[::-1]
            said = judge.ask_all([(order, q) for order in orders for q in PAIR_QUESTIONS])
        except WriteError:
            raise
        except (UserError, OSError) as error:
            record["failure"] = " ".join(str(error).split())
            continue
        both = zip(said[: len(PAIR_QUESTIONS)], said[len(PAIR_QUESTIONS) :], strict=True)
        answers = [PairAnswer(q, *two) for q, two in zip(PAIR_QUESTIONS, both, strict=True)]
        record["answers"] = {a.question.key: [a.forward.text, a.backward.text] for a in answers}
        record["cut_off"] = {
            a.question.key: why for a in answers if (why := a.forward.cut_off or a.backward.cut_off)
        }
        answered.append(answers)
    document = {
        "systems": [pairs[0][0].system, pairs[0][1].system],
        "questions": {
            question.key: _summary(
                [answers[index] for answers in answered], seed=seed, confidence=confidence
            )
            for index, question in enumerate(PAIR_QUESTIONS)
        },
        "pairs": records,
        "unmatched": [str(entry.path) for entry in alone],
        "judge": judge.identity,
        "seed": seed,
        "confidence": confidence,
    }
    write_text(output, json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    if not answered:
        raise EvaluationError(
            f"None of the {len(pairs)} pairs could be compared; the reasons are in {output}."
        )
    return document


def _with_own_sound(entry: ClipEntry) -> JudgeInput:
    sound = read_audio(entry.path, rate_hz=SOUND_RATE_HZ)
    name = f"{entry.system}/{entry.file}"
    return JudgeInput(entry.path, file_digest(entry.path), sound, name=name)


def _summary(answers: Sequence[PairAnswer], *, seed: int, confidence: float) -> dict[str, Any]:
    def rate(values: list[float], name: str) -> dict[str, float | None]:
        found = bootstrap_mean(values, seed=seed, name=name, confidence=confidence)
        return {"mean": found.mean, "low": found.low, "high": found.high}

    wins = [answer.wins for answer in answers if answer.wins is not None]
    places = [answer.first_places for answer in answers if answer.first_places is not None]
    first_place = rate(places, "first place")
    low, high = first_place["low"], first_place["high"]
    return {
        "win_rate": rate(wins, "wins"),
        "first_place_rate": first_place,
        "n": len(wins),
        "num_unread": len(answers) - len(wins),
        "biased": None if low is None or high is None else not low <= 0.5 <= high,
    }


def comparison_lines(document: dict[str, Any]) -> list[str]:
    """The result of a comparison, for people; failures and clips left out by name."""
    first, second = document["systems"]
    lines = []
    for name, found in document["questions"].items():
        bias = {None: "", True: ": POSITION BIAS", False: ""}[found["biased"]]
        unread = f"; {found['num_unread']} pairs unread" if found["num_unread"] else ""
        lines.append(
            f"{name}: {first} over {second} {_percent(found['win_rate'])} of {found['n']} pairs; "
            f"shown first wins {_percent(found['first_place_rate'])}{bias}{unread}."
        )
    lines += [f"not compared: {p['failure']}" for p in document["pairs"] if p["failure"]]
    if num := len(document["unmatched"]):
        lines.append(f"{len(document['pairs'])} pairs were shown; {num} clips have no counterpart:")
    lines += [f"not compared: {path} has no counterpart." for path in document["unmatched"]]
    for pair in document["pairs"]:
        for name, texts in pair["answers"].items():
            if any(choice_of(text) is None for text in texts):
                said = " and ".join(repr(" ".join(text.split())[:40]) for text in texts)
                why = f" ({pair['cut_off'][name]}; raise it)" if name in pair["cut_off"] else ""
                lines.append(f"unread: {name} of {pair['files'][0]}: {said}{why}")
    return lines


def _percent(rate: dict[str, float | None]) -> str:
    if rate["mean"] is None:
        return "-"
    if rate["low"] is None or rate["high"] is None:
        return f"{rate['mean']:.0%}"
    return f"{rate['mean']:.0%} [{rate['low']:.0%}, {rate['high']:.0%}]"
