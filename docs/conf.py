"""The site, by Sphinx: make site. Sources are README.md, CHANGELOG.md and the Markdown of docs/, as they are read on GitHub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pggrpo"
extensions = ["myst_parser"]
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md"]
root_doc = "docs/README"
html_theme = "furo"
html_title = "pggrpo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
highlight_language = "none"
html_show_sphinx = False
html_show_copyright = False
myst_heading_anchors = 3
smartquotes = False

CONTENTS = """
```{toctree}
:hidden:
:caption: Start

../README
../CHANGELOG
```

```{toctree}
:hidden:
:caption: Guides

data
rewards
sandbox
report
metrics
memory
loggers
troubleshooting
coming_from_trl
coming_from_verl
comparison
faults
faults_tried
results
speed
```

```{toctree}
:hidden:
:caption: Groups and keys
:glob:

config
groups/README
groups/*
```

```{toctree}
:hidden:
:caption: Commands
:glob:

commands
commands/README
commands/*
```
"""
"""What Sphinx needs for its menu and GitHub would show as text: added to the first page while it is read."""


def setup(app: Sphinx) -> None:
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _write_first_page)


def _add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    if name == root_doc:
        source[0] += CONTENTS


def _write_first_page(app: Sphinx, error: Exception | None) -> None:
    """The sources lie in two folders, so the first page does not lie at the top: index.html leads there."""
    if error is None:
        text = '<!doctype html><meta http-equiv="refresh" content="0; url=docs/README.html"><title>pggrpo</title>\n'
        Path(app.outdir, "index.html").write_text(text, encoding="utf-8")
