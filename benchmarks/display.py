"""The picture of the display in the README, from the metrics and samples of a finished run.

python benchmarks/display.py RUN [STEP]   writes docs/display.svg: what the terminal showed after that step
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from rich.console import Console

from pggrpo_cli.display.panel import panel
from pggrpo_cli.display.run_view import RunView

WIDTH, HEIGHT = 92, 40


def main() -> None:
    run = Path(sys.argv[1])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = int(sys.argv[2]) if len(sys.argv) > 2 else lines[-1]["step"]
    now = 0.0
    view = RunView(clock=lambda: now)
    view.start(lines[-1]["step"], "pg_grpo_arithmetic")
    for metrics in lines:
        if metrics["step"] > last:
            break
        now += metrics.get("step_time", 4.0)
        view.log(metrics["step"], {name: value for name, value in metrics.items() if name != "step"})
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    sample = next(one for one in samples if one["step"] == last and one["reward"] == 1)
    view.sample = (sample["prompt"], sample["completion"], sample["reward"])
    view.begin_phase("rollout")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(panel(view, WIDTH, HEIGHT))
    console.save_svg("docs/display.svg", title="pggrpo train")


if __name__ == "__main__":
    main()
