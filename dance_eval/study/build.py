"""From folders of clips to the folder that raters get, and its sealed key."""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm import tqdm

from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.study.design import Item, plan_trials
from dance_eval.study.errors import StudyError
from dance_eval.study.key import ClipRecord, StudyKey, opaque_name, read_key
from dance_eval.study.media import Form, Picture, common_form, write_picture
from dance_eval.study.page import MEDIA_FOLDER, PAGE_NAME, write_page
from dance_eval.study.pairing import ShownPair, catch_pairs, open_sources, shown_pairs
from dance_eval.study.spoiling import SPOILINGS
from musicinfuser.errors import UserError, WriteError


@dataclass(frozen=True)
class StudyOptions:
    """What a study is asked to be.

    Attributes:
        num_raters: How many people; their ids are 1 to this number.
        seed: Of all draws.
        pairs_per_rater: How many pairs each sees; None shows all.
        num_repeats: Pairs that each rater sees twice.
        num_catches: Intact clips against spoilt copies that each rater sees.
        is_forced: Whether a side must be chosen.
        height: Pixels of all clips; None as `common_form` says.
        width: Pixels of all clips; None likewise.
        fps: Frames per second of all clips; None likewise.
    """

    num_raters: int
    seed: int
    pairs_per_rater: int | None = None
    num_repeats: int = 2
    num_catches: int = 3
    is_forced: bool = False
    height: int | None = None
    width: int | None = None
    fps: float | None = None


def build_study(
    entries: Sequence[ClipEntry], *, folder: Path, key_file: Path, options: StudyOptions
) -> StudyKey:
    """Write the page and its key. A repeated command goes on where a killed one stopped.

    Args:
        entries: Clips of at least two systems.
        folder: Where ``index.html`` and its clips go; all of it may be given to raters.
        key_file: Where the key goes, outside the folder.
        options: What is asked for.

    Returns:
        The key; its notes say what was left out and changed.

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
    pairs, said = shown_pairs(sources, form=form)
    notes += said
    if not pairs:
        raise StudyError(
            f"The systems {', '.join(systems)} share no track with the same start, prompt and "
            f"seed that can be shown; generate them for the same list of cells. {notes[0]}"
        )
    catches = catch_pairs(pairs, num_catches=options.num_catches, seed=options.seed)
    key = _begun(_request(options, form, [*pairs, *catches]), folder, key_file, options)
    failed = _write_pictures([*pairs, *catches], folder, secret=key.secret, form=form, key=key)
    notes += [f"{path}: left out. {reason}" for path, reason in failed.items()]
    whole = [pair for pair in pairs if not pair.paths & set(failed)]
    if not whole:
        raise StudyError(f"None of the {len(pairs)} matched pairs can be shown: {notes[-1]}")
    key = _planned(
        replace(key, systems=systems, form=asdict(form), notes=notes),
        whole,
        [pair for pair in catches if not pair.paths & set(failed)],
        options,
    )
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
    key = StudyKey(
        study="",
        seed=options.seed,
        secret=secrets.token_hex(16),
        request=request,
        is_forced=options.is_forced,
    )
    key.write(key_file)
    return key


def _write_pictures(
    pairs: Sequence[ShownPair], folder: Path, *, secret: str, form: Form, key: StudyKey
) -> dict[Path, str]:
    """Re-encode all clips, in the order of their names; the reasons of those that failed."""
    named: dict[str, Picture] = {}
    for pair in pairs:
        for picture in (pair.first, pair.second):
            named[opaque_name(secret, picture.identity())] = picture
    failed: dict[Path, str] = {}
    for name in tqdm(sorted(named), unit="clip", desc="encode"):
        picture = named[name]
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

    named: dict[str, tuple[Item, str]] = {}
    for pair in pairs:
        systems = f"{pair.first.source.entry.system}/{pair.second.source.entry.system}"
        item = Item("pair", clip(pair.first), clip(pair.second))
        named[item_name(pair)] = (item, systems)
    caught = {
        item_name(pair): Item(
            "catch",
            clip(pair.first),
            clip(pair.second),
            expected=SPOILINGS[pair.second.spoiling][1],
        )
        for pair in catches
    }
    plan, repeats = plan_trials(
        named,
        caught,
        num_raters=options.num_raters,
        pairs_per_rater=options.pairs_per_rater,
        num_repeats=options.num_repeats,
        repeat_name=lambda pair: opaque_name(key.secret, f"repeat {pair}"),
        seed=options.seed,
    )
    items = {name: item for name, (item, _) in named.items()} | caught | repeats
    text = json.dumps([key.request, list(items), [list(map(str, t)) for t in plan.values()]])
    study = opaque_name(key.secret, text, num_bytes=4)
    return replace(key, study=study, clips=clips, items=items, plan=plan)
