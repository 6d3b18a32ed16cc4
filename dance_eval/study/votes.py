"""Files of votes: read, and held against what the study planned."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dance_eval.study.key import StudyError, StudyKey
from musicinfuser.errors import looked_for, printable
from musicinfuser.label_files import LabelError, csv_rows

COLUMNS = (
    "study", "seed", "rater", "order", "pair", "question", "left", "right", "choice", "ms",
    "plays_left", "plays_right", "check",
)  # fmt: skip
SCORES = {"left": 1.0, "tie": 0.5, "right": 0.0}
UNPLAYABLE = "unplayable"


@dataclass(frozen=True)
class Vote:
    """One answer.

    Attributes:
        rater: Who.
        item: What was shown, by its name on the page.
        question: What was asked.
        score: 1 for the item's first clip, 0 for its second, 0.5 for a tie.
        is_left: Whether the left clip was chosen; None for a tie.
        milliseconds: From the moment the pair was shown.
    """

    rater: str
    item: str
    question: str
    score: float
    is_left: bool | None
    milliseconds: float


@dataclass(frozen=True)
class Problem:
    """Something odd about a file or a rater.

    Attributes:
        kind: One word or two, for counting.
        where: File and line, or rater.
        text: One sentence.
        is_grave: Whether rows were left out for it that were meant to be votes.
    """

    kind: str
    where: str
    text: str
    is_grave: bool = True


def row_check(fields: Sequence[str]) -> str:
    """FNV-1a (32 bit, hex) over the fields joined by commas, as the page computes it.

    It finds what editors and spreadsheets change by accident. Who wants to cheat can compute it.
    """
    value = 0x811C9DC5
    for byte in ",".join(fields).encode("utf-8", "surrogateescape"):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{value:08x}"


def vote_files(paths: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """The csv files of files and folders; other files of a folder are named.

    Raises:
        StudyError: If a path does not exist or there is no file at all.
    """
    files: list[Path] = []
    problems: list[Problem] = []
    for path in paths:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if file.suffix.lower() == ".csv":
                    files.append(file)
                else:
                    text = "is not read, since its name does not end in .csv."
                    problems.append(Problem("other file", printable(file), text, is_grave=False))
        elif path.is_file():
            files.append(path)
        else:
            raise StudyError(
                f"{path}: does not exist{looked_for(path)}; give files of votes or their folder."
            )
    if not files:
        raise StudyError(f"{', '.join(map(str, paths))}: no file of votes (*.csv) is there.")
    return list(dict.fromkeys(files)), problems


def read_votes(files: Sequence[Path], key: StudyKey) -> tuple[list[Vote], list[Problem]]:
    """Read and check files of votes.

    A row counts only if it is what the page writes for this study: its check agrees, and item,
    sides and place are those planned for the rater. Equal rows in several files, such as a file
    downloaded half-way and the whole one, count once; where two rows answer one question
    differently, neither counts.

    Returns:
        The votes, sorted by rater and order, and everything that was found odd, missing answers
        included.
    """
    problems: list[Problem] = []
    rows: dict[tuple[str, str, str], list[tuple[Mapping[str, str], str]]] = defaultdict(list)
    for file in files:
        for where, row in _rows(file, problems):
            problem = _problem(row, key)
            if problem is None:
                rows[row["rater"], row["pair"], row["question"]].append((row, where))
            else:
                problems.append(Problem(problem[0], where, problem[1]))
    votes: list[Vote] = []
    answered: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for rater, trials in key.plan.items():
        for trial in trials:
            for question, _ in key.questions:
                if found := rows.get((rater, trial.item, question)):
                    answered[rater].add((trial.item, question))
                    vote = _vote(found, key, problems)
                    votes += [] if vote is None else [vote]
    return votes, problems + _missing(answered, key)


def _rows(file: Path, problems: list[Problem]) -> list[tuple[str, dict[str, str]]]:
    """Rows with all columns, each with its place."""
    name, found = printable(file), []
    try:
        rows = csv_rows(file)
        names = next(rows, (1, []))[1]
        missing = [column for column in COLUMNS if column not in names]
        if missing:
            text = f"lacks the columns {', '.join(missing)}; it is no file of votes as downloaded."
            problems.append(Problem("schema", name, text))
            return []
        for line, values in rows:
            where = f"{name}:{line}"
            if len(values) != len(names):
                problems.append(Problem("schema", where, f"has not {len(names)} fields."))
            else:
                row = dict(zip(names, values, strict=True))
                found.append((where, {column: row[column] for column in COLUMNS}))
    except LabelError as error:
        place = ("unreadable", name) if error.line is None else ("schema", f"{name}:{error.line}")
        problems.append(Problem(*place, error.reason))
    if not found and not any(problem.where.startswith(name) for problem in problems):
        problems.append(Problem("empty", name, "holds no answers.", is_grave=False))
    return found


def _problem(row: Mapping[str, str], key: StudyKey) -> tuple[str, str] | None:
    """Why a row is no vote of this study: a kind and a sentence."""
    rater, item, question = row["rater"], row["pair"], row["question"]
    if row["study"] != key.study:
        return "wrong study", f"belongs to the study {row['study']!r}, not to {key.study}."
    if rater not in key.plan:
        return "unknown rater", f"there is no rater {rater!r}; ids are 1 to {len(key.plan)}."
    if item not in key.items:
        return "unknown pair", f"there is no pair {item!r} in this study."
    if question not in {name for name, _ in key.questions}:
        return "unknown question", f"there is no question {question!r} in this study."
    if row["check"] != row_check([row[column] for column in COLUMNS[:-1]]):
        return "edited", "was changed after it was downloaded (its check disagrees)."
    shown = dict(enumerate(key.plan[rater], start=1)).get(_number(row["order"]) or 0)
    if shown is None or (shown.item, str(key.seed)) != (item, row["seed"]):
        return "edited", f"says that rater {rater} saw {item} as number {row['order']}."
    if (shown.left, shown.right) != (row["left"], row["right"]):
        text = f"says that {row['left']} was left and {row['right']} right; it was not so."
        return "edited", text
    if row["choice"] not in {*SCORES, UNPLAYABLE} or (row["choice"] == "tie" and key.is_forced):
        return "choice", f"its choice {row['choice']!r} is none that the page offers."
    texts = [row[column] for column in ("ms", "plays_left", "plays_right")]
    numbers = [_number(text) for text in texts]
    if None in numbers:
        return "schema", f"ms and plays are {', '.join(texts)}; they must be whole numbers."
    if row["choice"] != UNPLAYABLE and 0 in numbers[1:]:
        return "unwatched", "was answered before both clips were watched, which the page forbids."
    return None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _vote(
    found: Sequence[tuple[Mapping[str, str], str]], key: StudyKey, problems: list[Problem]
) -> Vote | None:
    """The one vote that several rows state, or None if they disagree or a clip did not play."""
    row, where = found[0]
    about = f"rater {row['rater']}, pair {row['pair']}, {row['question']}"
    for other, place in found[1:]:
        if dict(other) != dict(row):
            text = f"answers {about} otherwise than {where}; neither counts."
            problems.append(Problem("conflict", place, text))
            return None
        text = f"repeats {where} ({about}); it counts once."
        problems.append(Problem("duplicate", place, text, is_grave=False))
    if row["choice"] == UNPLAYABLE:
        text = f"{about}: a clip could not be played; there is no answer."
        problems.append(Problem("unplayable", where, text, is_grave=False))
        return None
    first_left = row["left"] == key.items[row["pair"]].first
    score = SCORES[row["choice"]]
    return Vote(
        rater=row["rater"],
        item=row["pair"],
        question=row["question"],
        score=score if first_left else 1.0 - score,
        is_left=None if row["choice"] == "tie" else row["choice"] == "left",
        milliseconds=float(row["ms"]),
    )


def _missing(answered: Mapping[str, set[tuple[str, str]]], key: StudyKey) -> list[Problem]:
    """Raters without any answer, and how many answers others lack."""
    problems = []
    absent = [rater for rater in key.plan if rater not in answered]
    if absent:
        text = f"{len(absent)} of {len(key.plan)} raters sent no answers."
        problems.append(Problem("no answers", f"raters {', '.join(absent)}", text, is_grave=False))
    for rater, done in answered.items():
        planned = [(t.item, question) for t in key.plan[rater] for question, _ in key.questions]
        lacking = [pair for pair in planned if pair not in done]
        if lacking:
            items = list(dict.fromkeys(item for item, _ in lacking))
            text = f"{len(lacking)} of {len(planned)} answers are missing, in {len(items)} pairs"
            shown = ", ".join(items[:8]) + (", ..." if len(items) > 8 else "")
            problems.append(
                Problem("missing", f"rater {rater}", f"{text}: {shown}.", is_grave=False)
            )
    return problems
