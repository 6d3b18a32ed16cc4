"""The one table of `benchmarks.gpu_check`, made of what its parts left."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import GIB, Figure, spread

PLAN = Path(__file__).parent / "results" / "plan.json"
# The variants that stand for a part's profile; the second where nothing is compiled.
OWN = ("profile", "profile+eager")
STOCK = "stock"
# Ends of what is shown of sampling.
SAMPLING = ("per step", "steps, by the time per step", "peak allocated")


def figures_of(
    title: str, end: str, result: Mapping[str, Any] | None, planned: tuple[str, str] | None
) -> list[Figure]:
    """Lines of one part.

    Args:
        title: What was measured.
        end: How the part ended.
        result: What it left; None is nothing.
        planned: Backbone and profile in ``plan.json``; None has no plan.
    """
    if result is None:
        return [Figure(title, "not measured", "", None, end)]
    if result["benchmark"] == "train_step":
        return _training(title, result, planned_gb(planned, result["settings"]))
    wanted = SAMPLING if result["benchmark"] == "sample" else ("",)
    found = [figure for figure in _all(result) if figure.what.endswith(wanted)]
    return [Figure(f"{title}: {f.what}", *_in_gb(f), f.note) for f in found]


def planned_gb(planned: tuple[str, str] | None, settings: Mapping[str, Any]) -> float | None:
    """What a training should have allocated; None where a clip or model is not the plan's."""
    if planned is None or settings["size"] != "full":
        return None
    details = json.loads(PLAN.read_text())["details"]
    clip = "{frames} of {height}x{width}".format(**settings)
    for row in details["rows"]:
        if (row["backbone"], row["profile"], row["clip"]) == (*planned, clip):
            return row["GB on the GPU"] - details["context_gb"]
    return None


def _training(title: str, result: Mapping[str, Any], planned: float | None) -> list[Figure]:
    details = result["details"]
    variants, peak = details["variants"], details["peak_tflops"]
    own = next((name for name in OWN if name in variants), None)
    seconds = {name: spread(held["step_s"])["median_s"] for name, held in variants.items()}
    figures = [Figure(f"{title}: {v}", "failed", "", None, w) for v, w in details["failed"].items()]
    for name in sorted(variants, key=lambda name: name != own):
        held, by = variants[name], "" if name == own else _by(name)
        way = f"{held['policy']}, {'compiled' if held['compiled'] else 'eager'}"
        used = held["useful"] / peak / seconds[name]
        shares = ", ".join(f"{kind} {100 * part:.0f} %" for kind, part in _shares(held))
        finite = "" if held["finite"] else "; gradients are not finite"
        note = f"{way}; {100 * used:.3g} % of the peak rate{finite}"
        note += f"; kernels: {shares}" if shares else ""
        figures.append(
            Figure(f"{title}: step{by}", seconds[name], "s", held["executed"] / peak, note)
        )
        if held["peak_allocated"]:
            figures.append(_memory(f"{title}: peak allocated{by}", name, held, planned))
    if own and STOCK in variants:
        note = "ours has ZICA to compute, too"
        ratio = seconds[own] / seconds[STOCK]
        figures.append(Figure(f"{title}: ours over diffusers and peft", ratio, "times", 1.0, note))
    for eager, held in variants.items():
        for compiled, other in variants.items():
            alike = held["policy"] == other["policy"] and eager != STOCK
            if alike and other["compiled"] and not held["compiled"]:
                gain = seconds[eager] / seconds[compiled]
                figures.append(Figure(f"{title}: eager over compiled", gain, "times"))
    return figures


def _memory(what: str, variant: str, held: Mapping[str, Any], planned: float | None) -> Figure:
    """Beside the plan, where it is that of the profile."""
    limit, note = (planned, "limit: the plan") if variant in OWN else (None, "")
    if variant == STOCK:
        note = "ZICA's weights and moments of ours among it"
    return Figure(what, held["peak_allocated"] / 1e9, "GB", limit, note)


def _by(variant: str) -> str:
    return " by diffusers and peft" if variant == STOCK else f", {variant}"


def _shares(held: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Largest first; of a CPU there are none."""
    shares = held.get("share") or {}
    return sorted(shares.items(), key=lambda item: -item[1])


def _all(result: Mapping[str, Any]) -> list[Figure]:
    names = ("what", "value", "unit", "limit", "note")
    return [Figure(*(row[name] for name in names)) for row in result["figures"]]


def _in_gb(figure: Figure) -> tuple[Any, str, float | None]:
    """Value, unit and limit, of memory in the plan's unit."""
    if figure.unit != "GiB":
        return figure.value, figure.unit, figure.limit
    times = GIB / 1e9
    limit = None if figure.limit is None else figure.limit * times
    value = figure.value * times if isinstance(figure.value, int | float) else figure.value
    return value, "GB", limit
