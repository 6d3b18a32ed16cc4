"""From folders of clips to the folder that raters get, and its sealed key."""

import hashlib
import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from tqdm import tqdm

from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.study.design import plan_trials
from dance_eval.study.key import ClipRecord, Item, StudyError, StudyKey, opaque_name, read_key
from dance_eval.study.media import SPOILINGS, Form, Picture, common_form, write_picture
from dance_eval.study.pairing import ShownPair, catch_pairs, open_sources, shown_pairs
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError, WriteError
from musicinfuser.html_pages import render

PAGE_NAME = "index.html"
MEDIA_FOLDER = "media"
# Besides watching both clips once: to answer and go on.
_ANSWER_SECONDS = 25.0


@dataclass(frozen=True)
class StudyOptions:
    """What a study is asked to be.

    Attributes:
        raters: How many people; their ids are 1 to this.
        seed: Of all draws.
        pairs_per_rater: How many pairs each sees; default: all.
        repeats: Pairs that each rater sees twice, sides swapped.
        catches: Spoilt copies against intact clips that each rater sees.
        ties: Whether no difference is an answer.
        height: Pixels of all clips; default: of the smallest.
        width: Pixels of all clips; default: of the smallest.
        fps: Frames per second of all clips; default: the highest rate.
    """

    raters: PositiveInt
    seed: int = 0
    pairs_per_rater: PositiveInt | None = None
    repeats: NonNegativeInt = 2
    catches: NonNegativeInt = 3
    ties: bool = True
    height: PositiveInt | None = None
    width: PositiveInt | None = None
    fps: PositiveFloat | None = None


def build_study(
    entries: Sequence[ClipEntry], *, folder: Path, key_file: Path, options: StudyOptions
) -> StudyKey:
    """Write the page and its key. A repeated command goes on where a killed one stopped.

    The folder gets ``index.html`` and its clips, all of which may be given to raters; the key goes
    outside it. Its notes say what was left out and changed.

    Raises:
        StudyError: If fewer than two systems share a clip, the key would lie in the folder, or
            there already is another study.
    """
    if key_file.resolve().is_relative_to(folder.resolve()):
        raise StudyError(f"{key_file}: the key would be given to raters; put it outside {folder}.")
    systems = list(dict.fromkeys(entry.system for entry in entries))
    if len(systems) < 2:
        raise StudyError(
            f"All clips are of the system {', '.join(systems)}; a study compares two or more: "
            "give a folder of each."
        )
    sources, notes = open_sources(entries)
    if not sources:
        raise StudyError(f"None of the {len(entries)} clips can be read: {notes[0]}")
    form = common_form(sources, height=options.height, width=options.width, fps=options.fps)
    pairs, more = shown_pairs(sources, form=form)
    notes += more
    if not pairs:
        raise StudyError(
            f"The systems {', '.join(systems)} share no track with the same start, prompt and "
            "seed that can be shown; generate them for the same list of generation requests. "
            f"{notes[0]}"
        )
    catches = catch_pairs(pairs, num_catches=options.catches, seed=options.seed)
    key = _begun(_request(options, form, [*pairs, *catches]), folder, key_file, options)
    failed = _write_pictures([*pairs, *catches], folder, form=form, key=key)
    notes += [f"{path}: left out. {reason}" for path, reason in failed.items()]
    pairs, catches = (
        [pair for pair in group if not pair.paths & set(failed)] for group in (pairs, catches)
    )
    if not pairs:
        raise StudyError(f"None of the matched pairs can be shown: {notes[-1]}")
    key = replace(key, systems=systems, form=asdict(form), notes=notes)
    key = _planned(key, pairs, catches, options)
    key.write(key_file)
    write_page(folder, key)
    return key


def _request(options: StudyOptions, form: Form, pairs: Sequence[ShownPair]) -> str:
    """A digest of everything that decides what raters see."""
    text = json.dumps([asdict(options), asdict(form), [pair.identity() for pair in pairs]])
    return hashlib.sha256(text.encode()).hexdigest()


def _begun(request: str, folder: Path, key_file: Path, options: StudyOptions) -> StudyKey:
    """The key of this very study if it was begun before, or a new one, already on disk."""
    if key_file.exists():
        key = read_key(key_file)
        if key.request != request:
            raise StudyError(
                f"{key_file}: is the key of another study (other clips or options); move it and "
                "its page away, or give another --output."
            )
        return key
    if (folder / PAGE_NAME).exists():
        raise StudyError(
            f"{folder}: holds a page whose key {key_file} is missing; give another --output."
        )
    key = StudyKey("", options.seed, secrets.token_hex(16), request, is_forced=not options.ties)
    key.write(key_file)
    return key


def _write_pictures(
    pairs: Sequence[ShownPair], folder: Path, *, form: Form, key: StudyKey
) -> dict[Path, str]:
    """Re-encode all clips, in the order of their names; the reasons of those that failed."""
    pictures = [picture for pair in pairs for picture in (pair.first, pair.second)]
    named = {opaque_name(key.secret, picture.identity()): picture for picture in pictures}
    failed: dict[Path, str] = {}
    for name, picture in tqdm(sorted(named.items()), unit="clip", desc="encode"):
        try:
            write_picture(folder / MEDIA_FOLDER / f"{name}.mp4", picture, form=form, seed=key.seed)
        except WriteError:
            raise
        except UserError as error:
            failed[picture.source.entry.path] = str(error)
    return failed


def _planned(
    key: StudyKey,
    pairs: Sequence[ShownPair],
    catches: Sequence[ShownPair],
    options: StudyOptions,
) -> StudyKey:
    """The key with its clips, items and plan."""
    clips: dict[str, ClipRecord] = {}

    def clip(picture: Picture) -> str:
        name, entry = opaque_name(key.secret, picture.identity()), picture.source.entry
        clips[name] = ClipRecord(
            system=entry.system,
            folder=str(entry.folder),
            file=entry.file,
            sha256=picture.source.digest,
            track=entry.track,
            track_offset_seconds=entry.track_offset_seconds,
            prompt=entry.prompt,
            seed=entry.seed,
            num_frames=picture.num_frames,
            sound_of=picture.sound.entry.system,
            spoiling=picture.spoiling,
        )
        return name

    def item_name(pair: ShownPair) -> str:
        return opaque_name(key.secret, f"item {pair.identity()}")

    shown: dict[str, tuple[Item, str]] = {}
    for pair in pairs:
        systems = f"{pair.first.source.entry.system}/{pair.second.source.entry.system}"
        shown[item_name(pair)] = Item("pair", clip(pair.first), clip(pair.second)), systems
    caught: dict[str, Item] = {}
    for pair in catches:
        expected = SPOILINGS[pair.second.spoiling]
        item = Item("catch", clip(pair.first), clip(pair.second), expected=expected)
        caught[item_name(pair)] = item
    plan, repeats = plan_trials(
        shown,
        caught,
        num_raters=options.raters,
        pairs_per_rater=options.pairs_per_rater,
        num_repeats=options.repeats,
        repeat_name=lambda pair: opaque_name(key.secret, f"repeat {pair}"),
        seed=options.seed,
    )
    items = {name: item for name, (item, _) in shown.items()} | caught | repeats
    text = json.dumps([key.request, list(items), [list(map(str, t)) for t in plan.values()]])
    study = opaque_name(key.secret, text, num_bytes=4)
    return replace(key, study=study, clips=clips, items=items, plan=plan)


def write_page(folder: Path, key: StudyKey) -> None:
    """Write the page of a study; its clips lie in the folder already.

    It needs no server and no network. It names clips and items by their opaque names only, items
    in alphabetical order: what the key says about systems and sources stays out.
    """
    items, clips = sorted(key.items), sorted(key.clips)
    item_at = {name: number for number, name in enumerate(items)}
    clip_at = {name: number for number, name in enumerate(clips)}
    content = {
        "study": key.study,
        # As text, since numbers of JavaScript end at 2**53.
        "seed": str(key.seed),
        "forced": key.is_forced,
        "questions": key.questions,
        "items": items,
        "clips": clips,
        "raters": {
            rater: [[item_at[t.item], clip_at[t.left], clip_at[t.right]] for t in trials]
            for rater, trials in key.plan.items()
        },
        "minutes": {rater: minutes_needed(key, rater) for rater in key.plan},
    }
    write_text(folder / PAGE_NAME, render("study.html", study=content))


def minutes_needed(key: StudyKey, rater: str) -> int:
    """About how long a rater will take, in whole minutes."""
    frames = sum(key.clips[clip].num_frames for t in key.plan[rater] for clip in (t.left, t.right))
    seconds = frames / key.form["fps"] + _ANSWER_SECONDS * len(key.plan[rater])
    return math.ceil(seconds / 60)
