"""A page of thumbnails: one HTML file with its pictures inside."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from datamodules.thumbnails import Picture

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 24px; color: #181a20; background: #fff; }
h1 { font-size: 22px; } h2 { font-size: 15px; margin: 20px 0 8px; }
main { display: flex; flex-wrap: wrap; gap: 0 32px; } section { max-width: 100%; }
h2 small { font-weight: normal; color: #70747e; }
table { border-collapse: collapse; margin: 8px 0 16px; }
th, td { padding: 2px 12px 2px 0; text-align: left; border-bottom: 1px solid #e4e6ea; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.cards { display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-start; }
figure { width: 240px; margin: 0; font-size: 12px; overflow-wrap: anywhere; }
figure img { display: block; max-width: 240px; }
.none { height: 60px; padding: 12px; background: #f3f4f6; color: #70747e; }
figcaption b { display: block; margin-top: 4px; } figcaption i { display: block; color: #70747e; }
"""


@dataclass(frozen=True)
class Card:
    """One thumbnail and what is said under it.

    Attributes:
        title: First line, such as the clip's name.
        text: The caption, or why there is no clip.
        facts: Split, size, start, ...
        picture: A JPEG file, or a sentence in its place.
    """

    title: str
    text: str
    facts: Sequence[str]
    picture: Picture


@dataclass(frozen=True)
class Group:
    """Thumbnails under one heading, and of how many they were chosen."""

    title: str
    cards: Sequence[Card]
    num_total: int


def thumbnail_page(title: str, *, tables: Sequence[str], groups: Sequence[Group]) -> str:
    """The HTML of a page that needs no other file.

    Args:
        title: Its headline.
        tables: Paragraphs and tables above the pictures, as HTML.
        groups: The pictures.
    """
    name = html.escape(title)
    parts = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n<h1>{name}</h1>\n",
        *tables,
        "<main>\n",
        *(_group(group) for group in groups),
        "</main>\n</html>\n",
    ]
    return "".join(parts)


def _group(group: Group) -> str:
    shown = f"{len(group.cards)} of {group.num_total}"
    cards = "".join(_card(card) for card in group.cards)
    return (
        f"<section><h2>{html.escape(group.title)} <small>{shown}</small></h2>\n"
        f'<div class="cards">\n{cards}</div></section>\n'
    )


def _card(card: Card) -> str:
    if isinstance(card.picture, bytes):
        code = base64.b64encode(card.picture).decode()
        picture = f'<img src="data:image/jpeg;base64,{code}" alt="">'
    else:
        picture = f'<div class="none">{html.escape(card.picture)}</div>'
    facts = html.escape(" · ".join(card.facts))
    return (
        f"<figure>{picture}<figcaption><b>{html.escape(card.title)}</b>{html.escape(card.text)}"
        f"<i>{facts}</i></figcaption></figure>\n"
    )
