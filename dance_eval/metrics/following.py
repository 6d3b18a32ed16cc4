"""The table that says whether each system follows its music."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.report import (
    CONTROL_NAME,
    Document,
    by_metric,
    interval_text,
    mismatched_control,
)
from musicinfuser.tables import Row

FOLLOWS = "does it follow the music?"
UNTOLD = "- (none"
_TEMPO = re.compile(r"median_ratio_x([\d.]+)$")
_FIRST = frozenset({FOLLOWS, "follows", "ignores it"})


def following_rows(document: Document) -> list[Row]:
    """Whether each system follows its music: lag, silence, tempo and another track.

    One row per control, with what a dance that follows and one that ignores it would have, and one
    column per system, whose controls are folded into it. Cells say ``mean [low, high] (n = N)``,
    or "-" and why there is nothing. Values are known by the last part of their names: metrics may
    be called as one likes: ``slope`` (`LagResponse`), ``at_beats`` (`BeatEnergy`), ``median_ratio``
    (`TempoResponse`), and the first value beside a level of ``chance``.
    """
    systems: Document = document["systems"]
    names = [name for metric, own in by_metric(document) for name in own]
    slope, energy = (
        next((name for name in names if name.endswith(f"/{value}")), None)
        for value in ("slope", "at_beats")
    )
    ratios = {found[1]: name for name in names if (found := _TEMPO.search(name))}
    rhythm = next(
        (own[0] for metric, own in by_metric(document) if f"{metric}/chance" in own), None
    )
    columns = list(dict.fromkeys(CONTROL_NAME.sub("", system) for system in systems))

    def cell(system: str, name: str | None, control: str) -> str:
        values = systems.get(system, {})
        summary = values.get(name or "")
        if summary is not None and summary["mean"] is not None:
            return f"{interval_text(summary, num_scored=0)} (n = {summary['n']})"
        metric, _, value = (name or "").partition("/")
        untold = values.get(f"{metric}/num_without_{value.removeprefix('median_')}")
        if untold and untold["mean"]:
            return f"{UNTOLD} of {untold['mean']:g}: too short, of unlike length, or still)"
        return f"- ({'not measured' if not name else control})"

    def beside(text: str, system: str, control: str, name: str | None) -> str:
        """A value with another sound, then that of the same requests with their own."""
        own = _own_sound(document, system, control, name) if text[0] != "-" and name else None
        if own is None or own["mean"] is None:
            return text
        return f"{text}; own sound {interval_text(own, num_scored=0)} (n = {own['n']})"

    def row(asked: str, follows: str, ignores: str, cells: Mapping[str, str | None]) -> Row:
        return {FOLLOWS: asked, "follows": follows, "ignores it": ignores, **cells}

    rows = [
        row(
            "lag: slope of the dance's delay over that of its sound",
            "1",
            "0",
            {system: cell(system, slope, "no shifted audio") for system in columns},
        ),
        row(
            "silence: motion at the beats taken away, of all motion",
            "1",
            "as with its own sound",
            {
                system: beside(
                    cell(f"{system}, silent audio", energy, "no silent audio"),
                    system,
                    f"{system}, silent audio",
                    energy,
                )
                for system in columns
            },
        ),
    ]
    tempi: list[tuple[str, str | None]] = [*sorted(ratios.items())] or [("", None)]
    for factor, name in tempi:
        rows.append(
            row(
                f"tempo {factor}".strip() + ": frequency of motion, over that of the music",
                "1",
                f"{1 / float(factor):.2f}" if factor else "",
                {system: cell(system, name, "no other tempo") for system in columns},
            )
        )
    cells = {}
    for system in columns:
        other = mismatched_control(systems, system) or ""
        text = cell(other, rhythm, "no mismatched audio")
        chance = systems.get(other, {}).get(f"{(rhythm or '').partition('/')[0]}/chance")
        if text and text[0] != "-" and chance:
            text += f", chance {chance['mean']:.3f}"
        cells[system] = beside(text, system, other, rhythm)
    what = rhythm.partition("/")[0].replace("_", " ") if rhythm else "beats"
    asked = f"another track: {what} with the track shown"
    rows.append(row(asked, "chance", "as with its own sound", cells))
    return rows


def is_controlled(rows: Sequence[Row]) -> bool:
    """Whether `following_rows` hold any figure, or clips that should have given one."""
    cells = (str(value) for row in rows for name, value in row.items() if name not in _FIRST)
    return any(value[0] != "-" or value.startswith(UNTOLD) for value in cells)


def _own_sound(document: Document, system: str, control: str, name: str) -> Document | None:
    """The summary of a value over a system's clips of the requests that a control has.

    A request that several folders answer counts once. Documents without clips have the system's.
    """
    if not document["clips"]:
        return document["systems"].get(system, {}).get(name)
    metric, _, value = name.partition("/")
    asked = {_request(clip) for clip in document["clips"] if clip["system"] == control}
    numbers = {
        request: clip["values"][metric][value]
        for clip in document["clips"]
        if clip["system"] == system
        and (request := _request(clip)) in asked
        and value in clip["values"].get(metric, {})
    }
    return bootstrap_mean(
        list(numbers.values()),
        seed=document["seed"],
        name=name,
        confidence=document["confidence"],
    ).as_fields()


def _request(clip: Document) -> tuple[Any, ...]:
    """What a clip and its control share."""
    track = clip.get("track_sha256") or clip.get("track")
    return track, clip.get("track_offset_seconds"), clip.get("prompt"), clip.get("seed")
