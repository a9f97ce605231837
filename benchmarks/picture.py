"""docs/against_trl.svg from benchmarks/against_trl.json: seconds of a step by part, pggrpo and TRL side by side.

python benchmarks/picture.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"rollout": "#4c78a8", "reference": "#72b7b2", "update": "#f58518", "optimizer": "#b279a2"}
WIDTH, LABELS, BAR, GAP, HEADING = 860, 190, 18, 6, 26
STYLE = """text{font:13px system-ui,sans-serif;fill:#333}.t{font-weight:600}.n{font-size:12px}
@media(prefers-color-scheme:dark){text{fill:#ddd}}"""


def rows_of(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    named = [("pggrpo", result["pggrpo"])]
    return named + [(f"TRL, {variant}", row) for variant, row in result["trl"].items()]


def draw(results: dict[str, dict[str, Any]]) -> str:
    """`results`: by machine, then by workload."""
    shapes: list[str] = []
    y = 10
    for title, result in (
        (f"{name}; {machine}", one) for machine, all_ in results.items() for name, one in all_.items()
    ):
        rows = rows_of(result)
        longest = max(row["step"] for _, row in rows)
        shapes.append(f'<text class="t" x="0" y="{y + 14}">{escape(title)}</text>')
        y += HEADING
        for name, row in rows:
            shapes.append(f'<text x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
            x = float(LABELS)
            for part, colour in PARTS.items():
                length = row.get(part, 0.0) / longest * (WIDTH - LABELS - 150)
                shapes.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>')
                x += length
            ratio = f", {row['ratio']:.1f}×" if "ratio" in row else ""
            words = f"{row['step']:.1f} s{ratio}, {row['memory']:.1f} GB"
            shapes.append(f'<text class="n" x="{x + 6:.1f}" y="{y + 13}">{words}</text>')
            y += BAR + GAP
        y += 10
    x = LABELS
    for part, colour in PARTS.items():
        shapes.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        shapes.append(f'<text class="n" x="{x + 17}" y="{y + 11}">{part}</text>')
        x += 100
    shapes.append(f'<text class="n" x="{LABELS}" y="{y + 34}">seconds of a training step</text>')
    body = "\n".join(shapes)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 44}" width="{WIDTH}">'
    return f"{head}<style>{STYLE}</style>\n{body}\n</svg>\n"


def main() -> None:
    results = json.loads((ROOT / "benchmarks" / "against_trl.json").read_text())
    (ROOT / "docs" / "against_trl.svg").write_text(draw(results), encoding="utf-8")


if __name__ == "__main__":
    main()
