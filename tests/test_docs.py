"""The pages of docs/: those that the code writes are current, links lead somewhere, and every page can be reached."""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
NAMES = sorted(str(page.relative_to(ROOT)) for page in PAGES)


@lru_cache
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_that_the_code_writes_are_current() -> None:
    assert generator().stale() == [], "the code says something else by now: run make docs"


def test_a_page_stands_for_every_command_and_group() -> None:
    """Counted here by the folders themselves, not as the generator counts."""
    commands = {file.stem for file in (ROOT / "pggrpo_cli" / "command").glob("[!_]*.py")}
    assert {page.stem for page in (DOCS / "commands").glob("*.md")} == commands | {"README"}
    groups = {file.parent.name for file in (ROOT / "conf").glob("*/*.yaml")} - {"hydra"}
    assert {page.stem for page in (DOCS / "groups").glob("*.md")} == groups | {"README"}


def test_a_key_stands_with_its_default_its_range_and_its_comment() -> None:
    page = (DOCS / "groups" / "loss.md").read_text(encoding="utf-8").partition("## loss=pg_grpo")[2]
    assert "| `loss.beta` | `0.1` | a number > 0 | exponent: sets the width of the trust region; 1 is GRPO |" in page
    assert "p_i = exp( β ( log π_θ(y_i|x) − log π_old(y_i|x) ) )" in page
    config = (DOCS / "config.md").read_text(encoding="utf-8")
    assert "| `checkpoint.every` | `8` | a whole number ≥ 1 or null | steps; null: only at the end |" in config
    assert "| `scoring.each.timeout_s` | `60` | a number > 0 or null |" in config


def test_a_stale_page_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = generator()
    monkeypatch.setattr(module, "pages", lambda: {"config.md": "new", "groups/loss.md": "same", "groups/fresh.md": "x"})
    monkeypatch.setattr(module, "DOCS", tmp_path)
    (tmp_path / "groups").mkdir()
    for name, text in {"config.md": "old", "groups/loss.md": "same", "groups/gone.md": "of a group that went"}.items():
        (tmp_path / name).write_text(text)
    assert module.stale() == ["config.md", "groups/fresh.md", "groups/gone.md"]
    module.write()
    assert module.stale() == []
    assert not (tmp_path / "groups" / "gone.md").exists()


def test_what_means_something_in_markdown_is_shown_as_it_is() -> None:
    generator()
    from as_markdown import anchor, cell, code, linked, prose

    assert cell("a|b <tag> *x* f(_y) a_b `_c`") == r"a\|b \<tag> \*x\* f(\_y) a_b `_c`"
    assert code("[[A|B]]") == r"`[[A\|B]]`"
    assert anchor("loss=pg_grpo") == "losspg_grpo"
    assert prose("One\nline.\n\n    x = y\n      + z\n\nMore.") == "One line.\n\n```text\nx = y\n  + z\n```\n\nMore."
    text = "see docs/data.md, `docs/a.md`, [x](docs/b.md)\n```\ndocs/c.md\n```\n"
    assert linked(text, "../") == text.replace("docs/data.md", "[data.md](../data.md)")


def headings(page: Path) -> set[str]:
    """The anchors of a page: as GitHub makes them, a number behind those that come again."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    found: list[str] = []
    for heading in re.findall(r"(?m)^#{1,6} (.+)$", text):
        bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.lower())
        slug = re.sub(r"[^\w\- ]", "", bare).strip().replace(" ", "-")
        count = sum(one.rpartition("-")[0] == slug or one == slug for one in found)
        found.append(f"{slug}-{count}" if count else slug)
    return set(found)


def broken(page: Path) -> list[str]:
    """Links of a page that lead to no file of the repository or to no heading in it."""
    text = re.sub(r"(?ms)^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"))
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, place = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        inside = file.is_relative_to(ROOT)
        if not file.exists() or not inside or (place and file.suffix == ".md" and place not in headings(file)):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_a_file_and_a_heading(name: str) -> None:
    assert broken(ROOT / name) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# One\n## What `x` is: a key\n```\n# no heading\n```\n# One\n")
    page = tmp_path / "page.md"
    good = ["other.md", "other.md#one", "other.md#what-x-is-a-key", "other.md#one-1", "https://example.org/x"]
    bad = ["gone.md", "other.md#no-heading", "other.md#two", "../outside.md", "#nothing-here"]
    (tmp_path.parent / "outside.md").write_text("")
    page.write_text("# Page\n" + " ".join(f"[x]({target})" for target in good + bad) + " `[x](in-code.md)`")
    assert broken(page) == bad


def test_every_page_stands_in_the_menu_of_the_site() -> None:
    """Sphinx warns of one that does not, and the site is built with warnings as errors. Here without Sphinx."""
    text = (DOCS / "conf.py").read_text(encoding="utf-8")
    menu = re.search(r'^CONTENTS = """\n(.*?)^"""', text, re.M | re.S)
    assert menu is not None
    entries = [line for line in menu[1].splitlines() if line and not line.startswith((":", "`"))]
    found = [sorted(DOCS.glob(f"{entry}.md")) for entry in entries]
    assert [entry for entry, files in zip(entries, found, strict=True) if not files] == []
    listed = {file.resolve() for files in found for file in files}
    assert {page for page in PAGES if page not in listed} == {DOCS / "README.md"}  # whose menu it is


def test_every_page_can_be_reached_from_the_first_one() -> None:
    seen, waiting = set(), [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            links = re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8"))
            waiting += [(page.parent / link).resolve() for link in links if not link.startswith("http")]
    assert {page for page in PAGES if page not in seen} == set()
