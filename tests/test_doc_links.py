"""README and docs: links lead somewhere, and what is named exists."""

import re
import subprocess
from pathlib import Path
from pydoc import locate

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_README_LINES, MOST_GLOSSARY_ENTRIES = 150, 25
PACKAGES = [path.parent.name for path in ROOT.glob("*/__init__.py")]
FOLDERS = f"(?:{'|'.join((*PACKAGES, 'assets', 'configs', 'docs'))})"


def test_the_readme_and_the_glossary_stay_short() -> None:
    assert len(PAGES[0].read_text().splitlines()) <= MOST_README_LINES
    rows = re.findall(r"^\| [^|]+\|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(rows) - 1 <= MOST_GLOSSARY_ENTRIES  # without the table's head


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_a_page_begins_with_what_its_reader_can_do(page: Path) -> None:
    title, empty, promise, *_ = page.read_text().splitlines()
    assert title.startswith("# ") and not empty and promise.startswith("After this page you ")
    assert f"(docs/{page.name})" in PAGES[0].read_text()


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_blocks(page))
    for link in links:
        path, _, anchor = link.partition("#")
        if path.startswith("https://"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_classes_that_are_named_exist(page: Path) -> None:
    for code in re.findall(r"`([^`\n]+)`", without_blocks(page)):
        if re.fullmatch(rf"{FOLDERS}/[\w./-]*", code):
            assert (ROOT / code).exists(), f"{page.name} names {code}"
        dotted = re.search(rf"(?<![\w./-]){FOLDERS}(?:\.\w+)+(?![\w/])", code)
        if dotted and not dotted[0].endswith(".safetensors"):
            assert locate(dotted[0]), f"{page.name} names {dotted[0]}"
        if code.startswith("make "):
            assert_target(code.split()[1])


def assert_target(name: str) -> None:
    done = subprocess.run(["make", "-n", name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
