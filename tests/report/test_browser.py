"""The page in a real browser: no error, no forbidden load, no sideways scrolling on a phone, hovering, printing.

Needs Chromium or Chrome (`make chromium`). Where there is none, these tests are skipped, loudly; in CI they fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from pggrpo_cli.report.page import render
from pggrpo_cli.report.run import read_run
from tests.report.run_files import HOSTILE, make_run, metrics_of

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = (
    "no Chromium or Chrome is installed, so the report was not looked at in a browser; `make chromium` installs one"
)
PROBE = """
const before = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const wide = [...document.querySelectorAll("body *")].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width > 0 && box.right > document.documentElement.clientWidth + 1 && !one.closest(".scroll, svg");
}).map(one => one.tagName + "." + one.className);
const svg = [...document.querySelectorAll("svg")].find(one => one.getBoundingClientRect().width > 0);
svg.scrollIntoView();
const box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right - 13, clientY: box.top + 20, bubbles: true}));
const hovered = document.getElementById("tip").hidden ? "" : document.getElementById("tip").textContent;
svg.focus();
svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft", bubbles: true}));
const stepped = document.getElementById("tip").textContent;
const button = document.querySelector(".legend button");
button.click();
const hidden = document.querySelectorAll("svg g[hidden]").length;
const texts = [...document.querySelectorAll("svg text")].filter(one => one.getBoundingClientRect().width > 0);
const smallest = Math.min(...texts.map(one => one.getBoundingClientRect().height));
const outside = texts.filter(one => { const own = one.getBoundingClientRect(), all = one.closest("svg").getBoundingClientRect();
  return own.left < all.left - 1 || own.right > all.right + 1; }).map(one => one.textContent);
const found = {width: innerWidth, before, wide, hovered, stepped, hidden, smallest, outside,
  background: getComputedStyle(document.body).backgroundColor, images: document.images.length};
document.documentElement.setAttribute("data-found", JSON.stringify(found));
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        warnings.warn(MISSING, stacklevel=1)
        pytest.skip(MISSING)
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run whose every text is hostile."""
    folder = tmp_path_factory.mktemp("browser")
    run = make_run(folder / "run", "loss=grpo", steps=20, text=HOSTILE + " {} " + "long" * 300)
    metrics = [json.dumps({**metrics_of(step), HOSTILE: 1.0}) + "\n" for step in range(21)]
    (run / "metrics.jsonl").write_text("".join(metrics))
    file = folder / "report.html"
    file.write_text(render([read_run(run, "run")]), encoding="utf-8")
    return file


def ask(browser: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--enable-logging=stderr", "--virtual-time-budget=2000", *options]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, encoding="utf-8", errors="replace")


def probed(browser: str, page: Path, folder: Path, width: int, *options: str) -> dict[str, object]:
    """What PROBE finds: the page itself forbids it, so this copy allows more scripts, and is otherwise the same."""
    copy = folder / "probed.html"
    html = page.read_text(encoding="utf-8")
    html = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", html)
    # A window is never narrower than some 500 pixels; a frame may be, and has a page's own viewport.
    copy.write_text(html.replace("</body>", f"<script>{{{PROBE}}}</script></body>"), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><body style="margin:0"><iframe src="probed.html" style="border:0;width:{width}px;height:4000px">'
        "</iframe><script>onload=()=>{document.documentElement.setAttribute('data-found',"
        "document.querySelector('iframe').contentDocument.documentElement.getAttribute('data-found'))}</script>"
    )
    done = ask(
        browser,
        folder,
        "--allow-file-access-from-files",
        "--dump-dom",
        "--window-size=1400,4200",
        *options,
        f"file://{frame}",
    )
    match = re.search(r'data-found="([^"]*)"', done.stdout)
    assert match is not None, done.stderr
    found: dict[str, object] = json.loads(match[1].replace("&quot;", '"').replace("&amp;", "&"))
    assert found["width"] == width
    return found


@pytest.mark.fault("T38")
def test_no_error_no_violation_and_no_code_of_a_model(browser: str, page: Path, tmp_path: Path) -> None:
    done = ask(browser, tmp_path, "--dump-dom", f"file://{page}")
    assert done.returncode == 0
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line or "Content Security" in line]
    assert console == []
    assert "<img" not in done.stdout
    assert 'tabindex="0"' in done.stdout  # its own script ran
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(page.read_text(encoding="utf-8").replace("</body>", "<script>document.title=1</script></body>"))
    done = ask(browser, tmp_path, "--dump-dom", f"file://{spoiled}")
    assert "Content Security Policy" in done.stderr  # what this test looks for would be seen
    assert "<title>1</title>" not in done.stdout


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits(browser: str, page: Path, tmp_path: Path, width: int) -> None:
    found = probed(browser, page, tmp_path, width)
    assert found["before"] == 0
    assert found["wide"] == []
    assert found["outside"] == []
    assert isinstance(found["smallest"], float | int)
    assert found["smallest"] > 10


def test_hovering_keys_and_the_legend(browser: str, page: Path, tmp_path: Path) -> None:
    found = probed(browser, page, tmp_path, 1280)
    lines = str(found["hovered"]).split("\n")
    assert lines[0] == "step 20"
    assert f"training, each step: {metrics_of(20)['reward']:.4g}" in lines
    assert str(found["stepped"]).startswith("step 19\n")
    assert found["hidden"] in (1, 2, 3, 4)


def test_light_and_dark(browser: str, page: Path, tmp_path: Path) -> None:
    light = probed(browser, page, tmp_path, 768)["background"]
    dark = probed(browser, page, tmp_path, 768, "--blink-settings=preferredColorScheme=0")["background"]
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(19, 22, 25)")


def test_it_prints(browser: str, page: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    ask(browser, tmp_path, f"--print-to-pdf={target}", "--no-pdf-header-footer", f"file://{page}")
    printed = target.read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) in range(3, 30)
