"""Links and images of the README, the changelog and the pages resolve; pages keep their lengths."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAX_README_LINES = 150
MAX_README_COLUMNS = 120
MAX_DECISION_LINES = 70
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|\b(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]:\s+(\S+)", re.M
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_code(text):
    """The text without blocks and spans of code, which may hold brackets that are no links."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", "", text)


def links(page):
    for match in LINK.finditer(without_code(page.read_text(encoding="utf-8"))):
        link = next(group for group in match.groups() if group)
        if not re.match(r"[a-z][a-z0-9+.-]*:", link):
            yield link


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for heading in re.findall(r"^#+\s+(.*?)\s*$", text, flags=re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        yield re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@every_page
def test_relative_links_and_images_resolve(page):
    broken = []
    for link in links(page):
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target)
        ):
            broken.append(link)
    assert broken == []


def test_links_are_recognised(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '[a](b.md) ![c](d.png "title") <img src="e.png"> `[f](g)` [h](https://i.org) [j](#k)\n'
        "```\n[l](m)\n```\n[n]: o.md\n# A *b*: `c` d\n"
    )
    assert list(links(page)) == ["b.md", "d.png", "e.png", "#k", "o.md"]
    assert list(anchors(page)) == ["a-b-c-d"]


def test_readme_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_README_LINES
    assert [line for line in lines if len(line) > MAX_README_COLUMNS] == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_decision_is_at_most_a_page(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) <= MAX_DECISION_LINES


def test_every_page_is_linked_from_the_index():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    pages = {page.resolve() for page in (ROOT / "docs").glob("*.md")} - {index.resolve()}
    assert pages - linked == set()
