"""vLLM's side of against_vllm.py, in vLLM's own environment: python benchmarks/vllm_worker.py OPTIONS.json"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path


def main() -> None:
    options = json.loads(Path(sys.argv[1]).read_text())
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    import vllm

    # In this process, or the clock would measure messages to another one, too.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    engine = vllm.LLM(
        model=options["folder"],
        dtype=options["dtype"],
        max_model_len=1024,
        seed=0,
        enable_prefix_caching=True,  # the prompt once a group
        generation_config="vllm",  # nothing of the folder's own defaults
    )
    sampling = vllm.SamplingParams(n=options["group_size"], temperature=1.0, top_p=1.0, max_tokens=options["tokens"])
    counts, seconds = [], []
    for prompts in options["rounds"]:
        started = time.monotonic()
        done = engine.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        seconds.append(time.monotonic() - started)
        counts.append(sum(len(output.token_ids) for request in done for output in request.outputs))
    rates = [count / taken for count, taken in zip(counts, seconds, strict=True)]
    Path(options["output"]).write_text(
        json.dumps(
            {
                "version": vllm.__version__,
                "tokens": statistics.median(counts[1:]),
                "seconds": statistics.median(seconds[1:]),
                "rate": statistics.median(rates[1:]),
            }
        )
    )


if __name__ == "__main__":
    main()
