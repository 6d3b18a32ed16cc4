"""Does a judge respond to audio? Its scores with the clip's own music against those with others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.matching import Pieces, track_of
from musicinfuser.aist_music import music_code
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from musicinfuser.media.video import probe_video

SOUNDS = {
    "other_track": "another track",
    "silence": "silence",
    "half_beat": "the music half a beat later",
}
"""What the controls are called in sentences."""
CONTROLS = tuple(SOUNDS)


def fitted_sound(waveform: torch.Tensor, num_samples: int) -> torch.Tensor:
    """A sound of shape (S,), S at least 1, cut to a length or repeated until it has it."""
    repeats = -(-num_samples // len(waveform))
    return waveform.repeat(repeats)[:num_samples]


def half_beat_seconds(beats_seconds: torch.Tensor) -> float | None:
    """Half the median distance of beats, shape (num_beats,); None with fewer than two of them."""
    if len(beats_seconds) < 2:
        return None
    return float(beats_seconds.double().diff().median()) / 2


def shifted_sound(waveform: torch.Tensor, *, seconds: float, rate_hz: int) -> torch.Tensor:
    """A sound moved later in a circle: what leaves at the end comes in at the beginning."""
    return waveform.roll(round(seconds * rate_hz))


def mismatched_audio(entries: Sequence[ClipEntry], *, seed: int) -> dict[Path, Path]:
    """For every clip the file of a clip with another track, as audio that does not match.

    Pieces of music stand in a circle in an order drawn from the seed, and each gets the audio of
    the next, so none keeps its own (a derangement). All clips of one piece get the same other
    track, whatever system made them: that of its first clip that has sound. Clips with a problem
    are passed over; with fewer than two tracks there is none.
    """
    usable = [entry for entry in entries if entry.problem is None]
    pieces = Pieces(usable)
    by_track: dict[tuple[str, str], list[ClipEntry]] = {}
    for entry in usable:
        name = track_of(entry)
        # Recordings of one piece of AIST are other files with the same music.
        code = music_code(name)
        by_track.setdefault((code, "") if code else (name, pieces.of(entry)), []).append(entry)
    sources = {}
    for track in sorted(by_track):
        files = (entry.path for entry in by_track[track])
        if (source := next(filter(_has_sound, files), None)) is not None:
            sources[track] = source
    if len(sources) < 2:
        return {}
    names = list(sources)
    order = torch.randperm(len(names), generator=generator(seed, "tracks", "other track"))
    circle = [names[index] for index in order.tolist()]
    following = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    return {
        entry.path: sources[following[track]]
        for track, own in by_track.items()
        if track in following
        for entry in own
    }


def _has_sound(path: Path) -> bool:
    try:
        return probe_video(path).has_audio
    except UserError:
        return False


def control_findings(
    records: Sequence[dict[str, Any]],
    *,
    metric: str,
    value: str,
    seed: int,
    confidence: float,
) -> dict[str, Any]:
    """Paired differences of one score, own music minus control, over clips and per system.

    A judge ignores a control if the bootstrap interval of the mean difference holds 0, and audio if
    it ignores all of them. With fewer than two clips nothing is claimed. The value is the name of
    the score, e.g. ``"beat_alignment"``; that with a control is ``"beat_alignment_<control>"``.

    Returns:
        ``controls``: {control: {mean, low, high, n, num_missing, ignored, systems: {system: {mean,
        low, high, n}}}}, ``ignores_audio``: true, false or null, ``ignored``: names of controls.
    """
    scored = [record for record in records if metric in record["values"]]

    def summary(differences: list[float], name: str) -> dict[str, Any]:
        found = bootstrap_mean(differences, seed=seed, name=name, confidence=confidence)
        return found.as_fields()

    controls: dict[str, Any] = {}
    for control in CONTROLS:
        pairs = [
            (record["system"], values[value] - values[f"{value}_{control}"])
            for record in scored
            if {value, f"{value}_{control}"} <= (values := record["values"][metric]).keys()
        ]
        name = f"{metric}/{value}/{control}"
        whole = summary([difference for _, difference in pairs], name)
        controls[control] = {
            **whole,
            "num_missing": len(scored) - len(pairs),
            "ignored": None if whole["low"] is None else whole["low"] <= 0 <= whole["high"],
            "systems": {
                system: summary([d for own, d in pairs if own == system], f"{name}/{system}")
                for system in dict.fromkeys(system for system, _ in pairs)
            },
        }
    known = [result["ignored"] for result in controls.values() if result["ignored"] is not None]
    return {
        "controls": controls,
        "ignores_audio": all(known) if known else None,
        "ignored": [control for control, result in controls.items() if result["ignored"]],
    }


def control_sentences(findings: dict[str, Any], *, metric: str, value: str) -> list[str]:
    """What `control_findings` found, for people."""
    sentences = []
    for control, result in findings["controls"].items():
        found = "no clips"
        if result["mean"] is not None:
            ends = (
                "" if result["low"] is None else f" [{result['low']:+.2f}, {result['high']:+.2f}]"
            )
            found = f"{result['mean']:+.2f}{ends} (n = {result['n']})"
        if result["ignored"] is not None:
            found += ": does not move" if result["ignored"] else ": moves"
        if missing := result["num_missing"]:
            found += f"; {missing} clips without this control"
        sentences.append(f"{metric}: {value}, own music minus {SOUNDS[control]}: {found}.")
    if findings["ignores_audio"] is None:
        last = "too few clips to say whether the judge responds to audio."
    elif findings["ignores_audio"]:
        last = (
            f"the judge IGNORES AUDIO: {value} does not move with any other sound. Its scores "
            "about music say nothing, or no clip here follows its music (add ground truth)."
        )
    elif findings["ignored"]:
        last = f"the judge IGNORES {' and '.join(SOUNDS[name] for name in findings['ignored'])}."
    else:
        last = f"the judge responds to audio: {value} moves with every other sound."
    return [*sentences, f"{metric}: {last}"]
