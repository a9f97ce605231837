"""docs/results.md, and what stands between markers in the README and in docs/memory.md, from the JSON files that the other
scripts wrote.

python benchmarks/results_page.py
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from arithmetic import interval
from workloads import GRPO, PairWorkload

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("rollout", "reference", "update", "optimizer")
VARIANT = {
    "tuned": "TRL tuned",
    "allocator": "TRL tuned, glibc told to keep freed memory",
    "default": "TRL as it comes",
}

HEADING = """# Results

Written by `python benchmarks/results_page.py` from what the scripts below measured. Everything can be measured again; the
machine is named, because absolute times hold for it alone: ratios count. Measured before rollouts and updates were compiled:
learning, growth, the comparison with the plain paths, start, DPO, and whatever says that rollouts were decoded in torch.
"""
LEARNING = """## Learning

`make preferences && python benchmarks/arithmetic.py`: single-digit sums (`data=chain_sum`), SmolLM2-135M-Instruct, 24 steps of
8 prompts × 8 completions × ≤ 24 tokens (DPO: 8 pairs that the model sampled itself); held-out greedy reward on 64 questions
that are never trained on; minutes of the whole command, with start and evaluations. {machine}. {note}
"""
SPEED = """## Speed against TRL

`make benchmark` (`python benchmarks/against_trl.py`): fresh processes, interleaved, medians. First both are shown to
compute the same (`benchmarks/gate.py`: greedy tokens, loss, gradient). TRL 1.16 tuned: gradient checkpointing off, the whole
batch in one pass. pggrpo tells the C library to keep freed memory, which TRL's users can do through the environment: one row of
TRL has that. The floor is the time of the matrix products and of reading the weights, at the rates that two probes of the same
run gave; everything else is free in it, so nobody reaches it.

![seconds of a step by part](against_trl.svg)
"""
GROWTH = """## Growth

`python benchmarks/growth.py`; {machine}; {base}.
"""


VLLM = """## Rollouts against vLLM

`python benchmarks/against_vllm.py --vllm-python …`: tokens per second of W1's rollouts within a training run, against the same
prompts given to vLLM {version} for CPUs; interleaved, both warm; {machine}{how}.
"""
PLAIN = """## The same learning without the fast paths

`python benchmarks/plain_path.py`: the default run, {steps} steps, with transformers' own generate and an ordinary forward a
completion in place of packing, shared prompts and our attention, cache and head; the same random numbers; {machine}. Held-out
greedy reward on 64 questions, mean ± 95 % over {seeds} seeds.
"""
REWARDS = """## Rewards in processes of their own

`python benchmarks/rewards.py` ({machine}, {processes} processes, medians of interleaved rounds): a score that does nothing costs
{ms_of_an_empty_score:.2f} ms through the pool. {scores:,} math-verify scores take {seconds_one_by_one:.1f} s one by one in the
trainer, {seconds_in_pool:.1f} s in the pool: **{gain:.2f}×**. {programs} programs of 4 tests, each in a sandbox of its own:
{programs_a_second:.1f} a second one by one, {programs_a_second_in_pool:.1f} in the pool: **{program_gain:.2f}×**.
"""
START = """## Start

`python benchmarks/start.py`: seconds from the command to the first completions of SmolLM2-135M, files in the page cache;
{machine}: median {median:.1f} ({each}).
"""


def read(name: str) -> dict[str, Any]:
    file = ROOT / "benchmarks" / name
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def learning(results: dict[str, Any]) -> list[str]:
    lines = [
        "| experiment | before | best kept checkpoint, mean ± 95 % (each seed) | minutes, each seed |",
        "|---|---|---|---|",
    ]
    for experiment, runs in results["runs"].items():
        best = [run["best"] for run in runs]
        each = ", ".join(f"{value:.2f}" for value in best)
        minutes = ", ".join(f"{run['seconds'] / 60:.1f}" for run in runs)
        before = statistics.mean(run["before"] for run in runs)
        mean = statistics.mean(best)
        lines.append(f"| `{experiment}` | {before:.2f} | {mean:.2f} ± {interval(best):.2f} ({each}) | {minutes} |")
    return lines


def comparison(results: dict[str, Any]) -> list[str]:
    lines = [
        f"| work | | step s | {' | '.join(PARTS)} | peak GB | TRL / pggrpo (each pair) |",
        f"|---|---|---|{'---|' * len(PARTS)}---|---|",
    ]
    for workload, result in results.items():
        title = GRPO[workload].title if workload in GRPO else PairWorkload().title
        if workload in GRPO and result.get("decoding", "torch") == "torch":
            title += ", rollouts decoded in torch"
        rows = {"**pggrpo**": result["pggrpo"], **{VARIANT[name]: row for name, row in result["trl"].items()}}
        if "floor" in result:
            rows["floor"] = result["floor"]
        for name, row in rows.items():
            parts = " | ".join(f"{row[part]:.2f}" if part in row else "" for part in PARTS)
            memory = f"{row['memory']:.1f}" if "memory" in row else ""
            ratios = ", ".join(f"{ratio:.2f}" for ratio in row.get("ratios", []))
            ratio = f"**{row['ratio']:.2f}** ({ratios})" if "ratio" in row else ""
            lines.append(f"| {title} | {name} | {row['step']:.2f} | {parts} | {memory} | {ratio} |")
            title = ""
    return lines


def growth(results: dict[str, Any]) -> list[str]:
    lines = ["| axis | seconds of a step | exponent |", "|---|---|---|"]
    for axis in ("group_size", "prompt_tokens", "tokens", "prompts"):
        found = results[axis]
        points = ", ".join(f"{s}: {t:.1f}" for s, t in zip(found["sizes"], found["seconds"], strict=True))
        lines.append(f"| `{axis}` | {points} | {found['exponent']:.2f} |")
    costs = results["seconds_per_1000_prompt_tokens"]
    said = ", ".join(f"{cost:.2f} s with groups of {size}" for size, cost in costs.items())
    return [*lines, "", f"1,000 more prompt tokens a prompt cost {said}."]


def vllm(results: dict[str, Any]) -> list[str]:
    lines = ["| work | pggrpo | vLLM | pggrpo / vLLM (each pair) |", "|---|---|---|---|"]
    for workload in (name for name in results if name in GRPO):
        found = results[workload]
        each = ", ".join(f"{ratio:.2f}" for ratio in found["ratios"])
        cells = f"{found['pggrpo']:.0f} | {found['vllm']:.0f} | **{found['ratio']:.2f}** ({each})"
        lines.append(f"| {GRPO[workload].title} | {cells} |")
    return lines


def plain(results: dict[str, Any]) -> list[str]:
    lines = ["| step | fast | plain | fast − plain, seed by seed |", "|---|---|---|---|"]
    for place in range(len(results["fast"][0]["held_out"])):
        fast, slow = ([run["held_out"][place] for run in results[name]] for name in ("fast", "plain"))
        apart = [one - other for one, other in zip(fast, slow, strict=True)]
        cells = (f"{statistics.mean(values):.3f} ± {interval(values):.3f}" for values in (fast, slow))
        difference = f"{statistics.mean(apart):+.3f} ± {interval(apart):.3f}"
        lines.append(f"| {place * results['every']} | {' | '.join(cells)} | {difference} |")
    return lines


def memory(results: dict[str, Any]) -> list[str]:
    lines = [
        f"{results['machine']}:",
        "",
        "| work | estimated | measured | estimated / measured | peak in |",
        "|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        sizes = f"{row['estimated']:.2f} GB | {row['measured']:.2f} GB | {row['estimated'] / row['measured']:.2f}"
        lines.append(f"| {row['work']} | {sizes} | {row['phase']} |")
    return lines


def between_markers(text: str, lines: list[str]) -> str:
    """`text` with `lines` in place of those between <!-- results --> and <!-- /results -->. Raises ValueError without such."""
    found, count = re.subn(
        r"(?s)(<!-- results -->\n).*?(<!-- /results -->)",
        lambda match: match[1] + "\n".join(lines) + "\n" + match[2],
        text,
    )
    if not count:
        raise ValueError("no <!-- results --> … <!-- /results --> in the page")
    return found


def rewrite(page: Path, lines: list[str]) -> None:
    page.write_text(between_markers(page.read_text(encoding="utf-8"), lines), encoding="utf-8")


def main() -> None:
    arithmetic, trl, grown = read("arithmetic.json"), read("against_trl.json"), read("growth.json")
    page = [HEADING]
    if arithmetic:
        page += [
            LEARNING.format(machine=arithmetic["machine"], note=arithmetic.get("note", "")),
            *learning(arithmetic),
            "",
        ]
    if trl:
        page += [SPEED]
        for name, measured in trl.items():
            page += [f"{name}:", "", *comparison(measured), ""]
    if grown:
        page += [GROWTH.format(machine=grown["machine"], base=grown["base"]), *growth(grown), ""]
    if rates := read("against_vllm.json"):
        version = rates["W1"]["vllm_version"]
        how = "" if rates.get("decoding") == "compiled" else ", pggrpo decoding in torch"
        page += [VLLM.format(version=version, machine=rates["machine"], how=how), *vllm(rates), ""]
    if found := read("plain_path.json"):
        steps = len(found["fast"][0]["training"])
        page += [PLAIN.format(steps=steps, machine=found["machine"], seeds=len(found["seeds"])), *plain(found), ""]
    if found := read("rewards.json"):
        gain = found["seconds_one_by_one"] / found["seconds_in_pool"]
        program_gain = found["programs_a_second_in_pool"] / found["programs_a_second"]
        page += [REWARDS.format(**found, gain=gain, program_gain=program_gain)]
    if found := read("start.json"):
        each = ", ".join(f"{value:.1f}" for value in found["seconds"])
        page += [START.format(machine=found["machine"], median=found["median"], each=each)]
    (ROOT / "docs" / "results.md").write_text("\n".join(page), encoding="utf-8")
    if arithmetic:
        rewrite(ROOT / "README.md", summary(arithmetic, trl))
    if sizes := read("memory.json"):
        rewrite(ROOT / "docs" / "memory.md", memory(sizes))


def summary(arithmetic: dict[str, Any], trl: dict[str, Any]) -> list[str]:
    runs = arithmetic["runs"]["pg_grpo_arithmetic"]
    before, best = [run["before"] for run in runs], [run["best"] for run in runs]
    minutes = max(run["seconds"] for run in runs) / 60
    lines = [
        f"Held-out greedy reward (64 questions) of the default run, mean of {len(runs)} seeds:",
        f"{statistics.mean(before):.2f} before, **{statistics.mean(best):.2f} ± {interval(best):.2f}**",
        f"(95 %) at the best kept checkpoint, in at most {minutes:.1f} minutes on 2 cores of an Intel Xeon.",
    ]
    if trl:
        lines.append("A step of 4 prompts × 8 completions takes, interleaved on the same machine,")
        lines.append(f"{'; '.join(_times_as_long(machine, measured) for machine, measured in trl.items())}.")
    lines.append("[docs/results.md](docs/results.md) has the seeds, the comparisons, and how to measure them again.")
    return lines


def _times_as_long(machine: str, measured: dict[str, Any]) -> str:
    told = measured["W1"]["trl"]
    how = "" if measured["W1"].get("decoding") == "compiled" else ", rollouts decoded in torch"
    words = [f"{told[name]['ratio']:.1f}× as long in {VARIANT[name]}" for name in VARIANT if name in told]
    if "W2" in measured:
        words.append(f"with prompts of 470 tokens {measured['W2']['trl']['tuned']['ratio']:.1f}×")
    return f"on {machine.replace('(R)', '').replace(' Processor', '')}{how}: {', '.join(words)}"


if __name__ == "__main__":
    main()
