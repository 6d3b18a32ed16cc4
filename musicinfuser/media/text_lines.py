"""Breaking a label into lines."""

from PIL import ImageFont


def wrapped_lines(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """At most two lines that fit; what does not ends in an ellipsis."""
    words, lines = text.split(), [""]
    while words:
        longer = f"{lines[-1]} {words[0]}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            words.pop(0)
        elif lines[-1] and len(lines) == 1:
            lines.append("")
        else:
            rest = " ".join([lines[-1], *words]).strip()
            while rest and font.getlength(rest + "...") > width:
                rest = rest[:-1]
            lines[-1] = rest.rstrip() + "..."
            break
    return lines
