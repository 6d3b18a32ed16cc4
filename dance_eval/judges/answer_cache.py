"""Answers on disk, one atomic file each, so that no question is paid for twice.

    python -m dance_eval.judges.answer_cache FOLDER ANSWERS.jsonl

writes all of them as one file, which `recorded.RecordedJudge` reads.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dance_eval.judges.judge import Answer, Judge, JudgeInput
from dance_eval.judges.questions import Question
from musicinfuser.atomic_files import write_json_lines, write_text
from musicinfuser.errors import in_one_sentence


class CachedJudge(Judge):
    """A judge whose answers are kept and not asked for again.

    An answer is found again by the bytes of picture and sound, the wording of the question, and
    everything in the judge's `identity`; names of clips, folders and servers do not matter. One
    that says nothing that counts (`Question.read`), such as that of a server with a fault, is kept
    for people to read, but the next command asks again.

    Args:
        judge: Who is asked for what is not there.
        folder: Where answers lie; missing folders are made.
    """

    def __init__(self, judge: Judge, folder: Path | str) -> None:
        self.judge = judge
        self.folder = Path(folder)
        self.concurrency = judge.concurrency

    @property
    def identity(self) -> dict[str, Any]:
        """The judge's."""
        return self.judge.identity

    def check(self) -> None:
        """As the judge does it."""
        self.judge.check()

    def ask(self, clips: Sequence[JudgeInput], question: Question) -> Answer:
        """The kept answer, or the judge's, which is on disk before it is returned."""
        path = self.place(clips, question)
        kept = _read(path)
        if kept is not None and question.read(kept["text"]) is not None:
            return Answer(kept["text"], tuple(kept["positions"]), kept.get("cut_off"))
        answer = self.judge.ask(clips, question)
        record = {
            "clips": [
                {
                    "video": clip.sha256,
                    "name": clip.name,
                    "sound": clip.sound,
                    "sound_sha256": clip.sound_sha256,
                }
                for clip in clips
            ],
            "question": question.name,
            "asked": question.text,
            "judge": self.identity,
            "text": answer.text,
            "cut_off": answer.cut_off,
            "scores": {
                "authors": answer.score,
                "strict": answer.strict_score,
                "expected": answer.expected_score,
            },
            "positions": [dict(tokens) for tokens in answer.positions],
        }
        write_text(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        return answer

    def place(self, clips: Sequence[JudgeInput], question: Question) -> Path:
        """The file of an answer, there or not."""
        inputs = [[clip.sha256, clip.sound_sha256] for clip in clips]
        text = json.dumps([inputs, question.text, self.identity], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:34]}.json"


def _read(path: Path) -> dict[str, Any] | None:
    """A kept answer; None if there is none, or one that somebody damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        is_whole = isinstance(record["text"], str) and isinstance(record["positions"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if is_whole else None


def main(arguments: list[str] | None = None) -> None:
    """Write kept answers as JSON lines; None takes the process's own command line."""
    parser = argparse.ArgumentParser(description="Write kept answers as JSON lines.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    places = parser.parse_args(arguments)
    records = [_read(path) for path in sorted(places.folder.glob("??/*.json"))]
    rows = [record for record in records if record is not None]
    rows.sort(key=lambda row: (row["clips"][0]["name"], row["clips"][0]["sound"], row["question"]))
    write_json_lines(places.output, rows)
    print(f"{len(rows)} answers in {places.output}")


if __name__ == "__main__":
    with in_one_sentence("answer_cache"):
        main()
