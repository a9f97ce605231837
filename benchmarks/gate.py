"""Before times are compared: do both trainers compute the same? In float32, on the work that is timed.

Greedy tokens of the native sampler against transformers' generate; loss and gradient of one batch sampled by TRL, with a
reference that differs from the policy, through TRL's trainer and through pggrpo's packed update. Exits with 1 if not.

    python benchmarks/gate.py
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl_worker import grpo_trainer
from workloads import GRPO, KL_COEF, questions

from pggrpo_cli.loss.grpo_token import GrpoToken
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy
from pggrpo_cli.sampler.native import Native, OpenNative
from pggrpo_cli.types import DrawKey, Prompt, Row, TrainBatch

WORKLOAD = replace(GRPO["W1 forced"], dtype="float32", tokens=32)
"""Equal lengths, so that TRL's KL, averaged within each completion first, is ours, averaged over all tokens."""
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-3


def greedy(policy: Policy) -> tuple[int, int]:
    """(tokens that differ from generate's, tokens compared)"""
    native = Native(
        group_size=1,
        max_new_tokens=32,
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        stop=[],
        max_rows=32,
        decoding="auto",
    )
    prompts = []
    for index, row in enumerate(questions(WORKLOAD, 4, policy.tokenizer)):
        said = [{"role": "user", "content": row["prompt"]}]
        text = policy.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        encoded = tuple(policy.tokenizer.encode(text, add_special_tokens=False))
        prompts.append(Prompt(row=Row(prompt=text), index=index, text=text, token_ids=encoded))
    draws = DrawKey(seed=1, purpose="rollout", step=1, first_ordinal=0)
    wrong = total = 0
    groups = OpenNative(native).sample(policy, prompts, draws)
    with policy.plain_attention(), torch.no_grad():
        for prompt, group in zip(prompts, groups, strict=True):
            ids = torch.tensor([prompt.token_ids])
            out = policy.module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=32)
            theirs, ours = out[0, ids.shape[1] :].tolist(), group.rollouts[0].completion_ids.tolist()
            wrong += sum(a != b for a, b in zip(theirs, ours, strict=False)) + abs(len(theirs) - len(ours))
            total += len(theirs)
    return wrong, total


def loss_and_gradient(policy: Policy, scratch: Path) -> tuple[float, float]:
    """(difference of the losses, relative difference of the gradients)"""
    trainer = grpo_trainer(WORKLOAD, "tuned", 1, scratch / "trl.json")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.ref_model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02 * parameter.std(unbiased=False))
    trainer.model.train()
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    inputs["advantages"] = torch.linspace(-1.5, 1.5, len(inputs["advantages"]))  # whatever the answers were
    trainer.current_gradient_accumulation_steps = 1  # what train() would set
    theirs = trainer.compute_loss(trainer.model, inputs)
    theirs.backward()

    prompts, completions, rows = _ragged(inputs)
    packed = pack(prompts, completions)
    reference = Policy(
        AutoModelForCausalLM.from_pretrained(trainer.model.name_or_path), policy.tokenizer, torch.float32
    )
    reference.module.load_state_dict(trainer.ref_model.state_dict())
    scores = policy.score(packed, 1.0, with_entropy=True)
    with torch.no_grad():
        ref_logprobs = reference.score(packed, 1.0, with_entropy=False).logprobs
    lengths = torch.tensor([len(ids) for group in completions for ids in group])
    batch = TrainBatch(
        sequence_index=packed.sequence_index,
        lengths=lengths,
        advantages=inputs["advantages"][rows],
        old_logprobs=scores.logprobs.detach(),
        ref_logprobs=ref_logprobs,
        token_weight=None,
        importance_weight=None,
        pairs=None,
        num_sequences=len(lengths),
        num_tokens=int(lengths.sum()),
        num_pairs=0,
        max_new_tokens=WORKLOAD.tokens,
    )
    loss = GrpoToken(
        clip_low=0.2,
        clip_high=0.2,
        ratio_max=None,
        kl_coef=KL_COEF,
        kl_estimator="k3",
        kl_reduction="token_mean",
        entropy_coef=0.0,
        nll_coef=0.0,
    )
    ours = loss(scores, batch).loss
    ours.backward()
    expected = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    difference = norm = 0.0
    for name, parameter in policy.module.named_parameters():
        difference += float((parameter.grad - expected[name].grad).double().square().sum())
        norm += float(expected[name].grad.double().square().sum())
    return abs(float(ours.detach() - theirs.detach())), (difference / norm) ** 0.5


def _ragged(inputs: dict[str, torch.Tensor]) -> tuple[list[list[int]], list[list[torch.Tensor]], list[int]]:
    """TRL's padded and shuffled batch as groups: prompts, their completions, and the row that each comes from."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row in range(len(inputs["prompt_ids"])):
        prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()].tolist()
        groups.setdefault(tuple(prompt), []).append(row)
    ids, mask = inputs["completion_ids"], inputs["completion_mask"].bool()
    completions = [[ids[row][mask[row]] for row in rows] for rows in groups.values()]
    return [list(prompt) for prompt in groups], completions, [row for rows in groups.values() for row in rows]


def main() -> None:
    from workloads import model_folder

    folder = model_folder()
    module: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    policy = Policy(module, AutoTokenizer.from_pretrained(folder), torch.float32)
    wrong, total = greedy(policy)
    with tempfile.TemporaryDirectory() as scratch:
        loss, gradient = loss_and_gradient(policy, Path(scratch))
    print(
        f"equality, float32: {wrong} of {total} greedy tokens differ from generate's; the loss differs from TRL's by "
        f"{loss:.1e}, the gradient by {gradient:.1e} of its norm"
    )
    if wrong or loss > LOSS_TOLERANCE or gradient > GRADIENT_TOLERANCE:
        sys.exit("the two trainers do not compute the same: no times are compared")


if __name__ == "__main__":
    main()
