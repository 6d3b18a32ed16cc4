"""Where numbers come from: command, versions, settings, and which clips have none."""

import html
import json
import platform
from importlib.metadata import PackageNotFoundError, version

from dance_eval.metrics.report import Document, odd_shapes
from musicinfuser.tables import Row, html_table

PACKAGES = (
    "torch", "torchvision", "torchmetrics", "numpy", "av", "pillow", "librosa", "opencv-python",
    "opencv-python-headless", "transformers", "diffusers", "lightning",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Python and the packages that numbers may depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def failed_rows(document: Document) -> list[Row]:
    """One row per clip and reason: what could not be scored, by which metrics, and why."""
    rows: list[Row] = []
    for clip in document["clips"]:
        by_reason: dict[str, list[str]] = {}
        for metric, reason in clip["failures"].items():
            by_reason.setdefault(reason, []).append(metric)
        for reason, metrics in by_reason.items():
            rows.append(
                {
                    "system": clip["system"],
                    "clip": clip["file"],
                    "metrics": ", ".join(metrics),
                    "reason": reason,
                }
            )
    return rows


def failures_html(document: Document) -> str:
    """Failed and skipped clips, odd lengths and rates, and whether the run was finished."""
    rows = failed_rows(document)
    rows += [
        {"system": "", "clip": path, "metrics": "all", "reason": "in no line of its manifest"}
        for path in document["unlisted"]
    ]
    parts = []
    if not document["complete"]:
        parts.append("<p><b>The run was stopped before every clip was scored.</b></p>\n")
    if rows:
        parts.append(f'<div class="wide reasons" tabindex="0">{html_table(rows)}</div>\n')
    else:
        parts.append("<p>None: every metric scored every clip.</p>\n")
    if shapes := odd_shapes(document):
        listed = "".join(f"<li>{html.escape(shape)}</li>" for shape in shapes)
        parts.append(
            "<p>Clips differ in length or rate, which scores of motion depend on:</p>\n"
            f"<ul>{listed}</ul>\n"
        )
    return "".join(parts)


def origin_html(document: Document, *, command: str, settings: Document) -> str:
    """The command, the seed, versions, all options and all metrics with their arguments."""
    rows: list[Row] = [{"package": name, "version": text} for name, text in versions().items()]
    metrics = json.dumps(document.get("metrics", []), indent=1)
    options = json.dumps(settings, indent=1, default=str)
    percent = f"{document['confidence']:.0%}"
    return (
        f"<pre>{html.escape(command)}</pre>\n"
        f"<p>Seed {document['seed']}; {percent} intervals by bootstrap over clips.</p>\n"
        f"<details><summary>Versions</summary>{html_table(rows)}</details>\n"
        f"<details><summary>All options</summary><pre>{html.escape(options)}</pre></details>\n"
        "<details><summary>All metrics with their arguments</summary>"
        f"<pre>{html.escape(metrics)}</pre></details>\n"
    )
