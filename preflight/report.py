"""The report of a check: sections of text and a list of problems."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from musicinfuser.errors import user_error
from musicinfuser.tables import Row, markdown_table

GB = 1e9


@dataclass
class Report:
    """Sections in the order they were added, and every problem once."""

    sections: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, title: str, *parts: str) -> None:
        """Add a section; empty parts are left out."""
        text = "\n".join(part.rstrip("\n") for part in parts if part)
        self.sections.append((title, text))

    def problem(self, sentence: str) -> None:
        """Note a problem, unless it is known."""
        if sentence not in self.problems:
            self.problems.append(sentence)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note what this program refuses in the block, and go on after it.

        Raises:
            ValueError: One that is no `UserError`: a fault of this program.
        """
        try:
            yield
        except Exception as error:
            refusal = user_error(error)
            if refusal is None:
                raise
            self.problem(str(refusal))

    def text(self) -> str:
        """The whole report."""
        lines = [f"{title}:\n{text}\n" for title, text in self.sections]
        if self.problems:
            lines.append("\n".join(["problems:", *(f"  - {p}" for p in self.problems)]))
        else:
            lines.append("no problems found")
        return "\n".join(lines)


def table(rows: list[Row]) -> str:
    """Rows as an aligned table, numbers with two digits."""
    return markdown_table(rows, num_digits=2)


def gigabytes(num_bytes: float) -> float:
    """Bytes as GB of 10^9, the unit of disks and of the memory table."""
    return num_bytes / GB


def count(number: int, noun: str) -> str:
    """A number with its noun: ``1 clip``, ``2 clips``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
