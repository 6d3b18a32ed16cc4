"""HTML pages and model cards from ``templates/``; a page needs no other file."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from musicinfuser.tables import NO_MARKS, Marks, Row, cell_text, column_names


def data_url(content: bytes, kind: str) -> str:
    """A file of a type such as ``image/webp`` as a link that holds it."""
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


def html_table(rows: Sequence[Row], marks: Marks | None = None, num_digits: int = 3) -> Markup:
    """A table with the cells of `musicinfuser.tables.markdown_table`.

    Numbers carry the class ``number``, rows below a line the class ``rule``; bold cells are
    ``<b>``. Rows, marks and digits are as there.
    """
    values = {"rows": rows, "marks": marks or NO_MARKS, "num_digits": num_digits}
    return Markup(render("table.html", names=column_names(rows), **values))


def _breakable(text: str) -> Markup:
    """May break between the words of a name, and never within an interval."""
    text = re.sub(r"(?<=\d), (?=[-+]?\d)", ",\N{NO-BREAK SPACE}", text)
    return Markup(re.sub(r"(?<=[_/])(?=\w)", "<wbr>", html.escape(text)))


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=lambda name: not str(name).endswith(".md"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
_TEMPLATES.filters |= {
    "table": html_table,
    "cell_text": cell_text,
    "data_url": data_url,
    "breakable": _breakable,
}
