"""What the values of a report mean, in the words of the classes that measure them."""

import html
import importlib
import inspect
import re

from dance_eval.metrics.report import Document
from musicinfuser.moved_names import new_name

_VALUES = re.compile(r"^Values[^\n]*:\n((?:    [^\n]*\n|\n)+)", re.MULTILINE)


def meanings_html(document: Document) -> str:
    """Summary and values of every metric's class, metrics of one class together.

    Args:
        document: The content of metrics.json.

    Returns:
        One ``<details>``, or "" if no metric is listed.
    """
    names: dict[str, list[str]] = {}
    for spec in document.get("metrics", []):
        place = spec["class_path"]
        own = spec.get("init_args", {}).get("name", place.rpartition(".")[2])
        names.setdefault(place, []).append(own)
    parts = []
    for place, own in names.items():
        # A metrics.json of an earlier version names its classes as they were called then.
        module, _, kind = (new_name(place) or place).rpartition(".")
        summary, values = described(getattr(importlib.import_module(module), kind))
        parts.append(
            f"<h4>{html.escape(', '.join(own))}</h4>\n<p>{html.escape(summary)}</p>\n"
            + (f"<pre>{html.escape(values)}</pre>\n" if values else "")
        )
    if not parts:
        return ""
    return f"<details><summary>What the values mean</summary>\n{''.join(parts)}</details>\n"


def described(kind: type) -> tuple[str, str]:
    """First sentences of a class's docstring, and its section of values or that of its base."""
    text = inspect.cleandoc(kind.__doc__ or "")
    values = next(filter(None, map(_values, kind.__mro__)), "")
    return " ".join(text.partition("\n\n")[0].split()), values


def _values(kind: type) -> str:
    found = _VALUES.search(inspect.cleandoc(kind.__doc__ or "") + "\n")
    return inspect.cleandoc(found.group(1)) if found else ""
