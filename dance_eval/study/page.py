"""The folder that raters get: index.html and its clips, which need no server and no network."""

import math
from pathlib import Path

from dance_eval.study.key import StudyKey
from musicinfuser.atomic_files import write_text
from musicinfuser.html_pages import render

PAGE_NAME = "index.html"
MEDIA_FOLDER = "media"
# Besides watching both clips once: to answer and go on.
_ANSWER_SECONDS = 25.0


def write_page(folder: Path, key: StudyKey) -> None:
    """Write the page of a study; its clips lie in the folder already.

    The page names clips and items by their opaque names only, and items in alphabetical order.

    Args:
        folder: Where ``index.html`` goes.
        key: The study; what it says about systems and sources stays out.
    """
    write_text(folder / PAGE_NAME, render("study.html", study=page_content(key)))


def page_content(key: StudyKey) -> dict[str, object]:
    """What the page knows: names, questions and the trials of each rater as indices of names."""
    items, clips = sorted(key.items), sorted(key.clips)
    item_at = {name: number for number, name in enumerate(items)}
    clip_at = {name: number for number, name in enumerate(clips)}
    return {
        "study": key.study,
        # As text, since numbers of JavaScript end at 2**53.
        "seed": str(key.seed),
        "forced": key.is_forced,
        "questions": [list(question) for question in key.questions],
        "items": items,
        "clips": clips,
        "raters": {
            rater: [[item_at[t.item], clip_at[t.left], clip_at[t.right]] for t in trials]
            for rater, trials in key.plan.items()
        },
        "minutes": {rater: minutes_needed(key, rater) for rater in key.plan},
    }


def minutes_needed(key: StudyKey, rater: str) -> int:
    """About how long a rater will take, in whole minutes."""
    frames = sum(key.clips[clip].num_frames for t in key.plan[rater] for clip in (t.left, t.right))
    seconds = frames / key.form["fps"] + _ANSWER_SECONDS * len(key.plan[rater])
    return math.ceil(seconds / 60)
