"""HTML pages and model cards from ``templates/``; a page needs no other file."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from musicinfuser.tables import NO_MARKS, Marks, Row, html_table, html_text


def data_url(content: bytes, kind: str) -> str:
    """A file as a link that holds it.

    Args:
        content: The file.
        kind: Its type, such as ``image/webp``.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def render(template: str, **values: Any) -> str:
    """The text of a page; in HTML values are escaped, except tables and what is marked as safe.

    Args:
        template: Name of a file in ``templates/``.
        values: What the template names.

    Raises:
        jinja2.TemplateError: The template names a value that is not given.
    """
    return _TEMPLATES.get_template(template).render(values)


def _table(rows: Sequence[Row], marks: Marks | None = None, num_digits: int = 3) -> Markup:
    return Markup(html_table(rows, num_digits=num_digits, marks=marks or NO_MARKS))


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=lambda name: not str(name).endswith(".md"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
_TEMPLATES.filters |= {
    "table": _table,
    "data_url": data_url,
    "breakable": lambda text: Markup(html_text(text)),
}
