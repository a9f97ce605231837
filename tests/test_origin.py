"""A run goes on only with what it began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pggrpo_cli.assemble import find_checkpoint, run_training
from pggrpo_cli.errors import ConfigError, StoppedEarly
from pggrpo_cli.interruption import Interruption
from pggrpo_cli.origin import model_digest, prompts_digest, refuse_other_origin
from pggrpo_cli.types import Prompt, Row
from tests.conftest import save_classifier, tiny_policy
from tests.test_exact_resume import config

pytestmark = pytest.mark.fault("T9")


def prompt(token_ids: tuple[int, ...] = (1, 2), completion: tuple[int, ...] = (3,), answer: object = "4") -> Prompt:
    row = Row(prompt="", columns={"answer": answer})
    return Prompt(row=row, index=0, text="", token_ids=token_ids, completion_ids=(completion,))


def test_the_digest_is_of_all_that_training_reads() -> None:
    seen = {
        prompts_digest(prompts)
        for prompts in (
            [prompt()],
            [prompt(), prompt()],
            [prompt(token_ids=(1, 3))],
            [prompt(completion=(4,))],
            [prompt(answer="5")],
            [prompt(answer=object())],
        )
    }
    assert len(seen) == 6
    assert prompts_digest([prompt()]) == prompts_digest([prompt()])
    assert prompts_digest([prompt(answer=object())]) == prompts_digest([prompt(answer=object())])


def test_one_weight_makes_another_model() -> None:
    module = tiny_policy().module
    before = model_digest(module.named_parameters())
    assert before == model_digest(tiny_policy().module.named_parameters())
    with torch.no_grad():
        next(module.parameters())[7, 5] += 1e-6
    assert model_digest(module.named_parameters()) != before
    assert model_digest(module.bfloat16().named_parameters()) != before


def rows(file: Path, answer: int) -> None:
    lines = [{"prompt": f"{a} + 1", "answer": str(a + answer)} for a in range(12)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_data_or_model_that_changed_behind_the_configuration(tmp_path: Path) -> None:
    data, model, run = tmp_path / "data.jsonl", tmp_path / "model", tmp_path / "run"
    run.mkdir()
    rows(data, 1)
    policy = tiny_policy()

    def save() -> None:
        policy.module.save_pretrained(model)
        policy.tokenizer.save_pretrained(model)

    save()
    line = [
        "model=hf", f"model.path={model}", "data=jsonl", f"data.path={data}", "data.eval_size=2", "loss=pg_grpo",
        "sampler.max_new_tokens=4",
    ]  # fmt: skip
    with pytest.raises(StoppedEarly):
        run_training(config([*line, "trainer.max_minutes=1e-9"], 2), run, None, Interruption())

    def resume(*more: str) -> None:
        run_training(config([*line, *more], 2), run, find_checkpoint(run), Interruption())

    rows(data, 2)  # other answers to the same questions
    with pytest.raises(ConfigError, match=r"`data`: the prompts are not those .* resume.allow_changed=\[data\]"):
        resume()
    rows(data, 1)
    with torch.no_grad():
        next(policy.module.parameters()).mul_(1.5)
    save()
    with pytest.raises(ConfigError, match=r"`model`: the weights are not those .* resume.allow_changed=\[model\]"):
        resume()
    for other in ("model.gradient_checkpointing", "model.compute_dtype", "sampler.top_k"):  # they move no weight
        with pytest.raises(ConfigError, match=r"`model`: the weights are not those"):
            resume(f"resume.allow_changed=[{other}]")
    resume("resume.allow_changed=[model]")
    assert (run / "finished.json").exists()


def test_held_out_rows_and_the_reference_count_too(tmp_path: Path) -> None:
    origin = {"data": "a", "held-out data": "b", "model": "c", "reference": "d"}
    refuse_other_origin(origin, origin, [])
    refuse_other_origin({}, origin, [])
    refuse_other_origin(origin, {"data": "a", "model": "c"}, [])
    for name, key, helps, does_not in (
        ("data", "data", "data.path", "data_"),
        ("data", "data", "seed", "reward"),
        ("held-out data", "data", "evaluation.num_prompts", "evaluation.every"),
        ("model", "model", "model.path", "model.chat_template"),
        ("reference", "reference", "reference.path", "reference.device"),
    ):
        now = {**origin, name: "z"}
        for allowed in ([], [does_not]):
            with pytest.raises(ConfigError, match=rf"`{key}`: .* resume.allow_changed=\[{key}\]"):
                refuse_other_origin(origin, now, allowed)
        refuse_other_origin(origin, now, [key])
        refuse_other_origin(origin, now, [helps])


def test_a_reward_model_whose_files_changed(tmp_path: Path) -> None:
    scorer, run = tmp_path / "scorer", tmp_path / "run"
    run.mkdir()
    save_classifier(scorer)
    line = ["reward=reward_model", f"reward.reward_model.path={scorer}", "sampler.max_new_tokens=4"]
    run_training(config(line, 1), run, None, Interruption())
    run_training(config(line, 2), run, find_checkpoint(run), Interruption())
    file = scorer / "model.safetensors"
    weights = file.read_bytes()
    file.write_bytes(weights[:-4] + bytes([weights[-4] ^ 1]) + weights[-3:])
    for other in ("reward.reward_model.dtype", "data"):
        words = [*line, f"resume.allow_changed=[{other}]"]
        with pytest.raises(ConfigError, match=r"`reward.reward_model.path`: the model's files have changed since .*"):
            run_training(config(words, 3), run, find_checkpoint(run), Interruption())
    run_training(config([*line, "resume.allow_changed=[reward]"], 3), run, find_checkpoint(run), Interruption())
    run_training(
        config(line, 4), run, find_checkpoint(run), Interruption()
    )  # what was allowed is the run's from then on


def test_a_run_notes_them_all_and_a_refusal_leaves_it_as_it_was(tmp_path: Path) -> None:
    reference, run = tmp_path / "reference", tmp_path / "run"
    run.mkdir()
    policy = tiny_policy()

    def save() -> None:
        policy.module.save_pretrained(reference)
        policy.tokenizer.save_pretrained(reference)

    save()
    line = [
        "model=hf",
        f"model.path={reference}",
        "loss=pg_grpo",
        "sampler.max_new_tokens=4",
        f"reference.path={reference}",
    ]
    run_training(config(line, 2), run, None, Interruption())
    state = json.loads((run / "checkpoints" / "step-000002" / "state.json").read_text())
    assert state["progress"]["origin"].keys() == {"data", "held-out data", "model", "reference"}
    files = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with torch.no_grad():
        next(policy.module.parameters()).mul_(1.5)
    save()
    begun: list[str] = []
    with pytest.raises(ConfigError, match="`reference`: the reference's weights"):
        run_training(
            config([*line, "resume.allow_changed=[model]"], 3),
            run,
            find_checkpoint(run),
            Interruption(),
            lambda computes: begun.append(computes) or [],
        )
    assert begun == []
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == files


def test_other_data_or_another_model_use_no_old_reference(tmp_path: Path) -> None:
    """Log-probabilities of the data set's completions are cached in the checkpoint: they are those of its rows alone."""
    file, run, fresh = tmp_path / "pairs.jsonl", tmp_path / "run", tmp_path / "fresh"
    for folder in (run, fresh):
        folder.mkdir()

    def write(word: str) -> None:
        lines = [{"prompt": f"{a} + 1", "chosen": f"{a + 1}", "rejected": f"{word} {a}"} for a in range(8)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    line = [
        "data=preference_jsonl", f"data.path={file}", "data.eval_size=0", "loss=dpo", "reward=preference",
        "evaluation.every=null", "sampler.group_size=2", "trainer.prompts_per_step=8", "optimizer.lr=1e-12",
    ]  # fmt: skip
    write("no")
    run_training(config(line, 1), run, None, Interruption())
    write("not at all")
    changed = [*line, "resume.allow_changed=[data]"]
    run_training(config(changed, 2), run, find_checkpoint(run), Interruption())
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    # The policy has not moved: against the right reference nothing is gained or lost.
    assert abs(last["rewards/rejected"]) < 1e-4
    assert abs(last["rewards/chosen"]) < 1e-4


def test_allowing_a_whole_allows_its_parts(tmp_path: Path) -> None:
    refuse_other_origin({"data": "1"}, {"data": "2"}, ["sampler"])  # max_new_tokens decides which prompts fit
    with pytest.raises(ConfigError, match="`data`"):
        refuse_other_origin({"data": "1"}, {"data": "2"}, ["optimizer"])
    run_training(config(["debug=fast"], 1), tmp_path, None, Interruption())
    words = ["debug=fast", "optimizer.weight_decay=0.37", "resume.allow_changed=[optimizer]"]
    run_training(config(words, 2), tmp_path, find_checkpoint(tmp_path), Interruption())
    state = json.loads((tmp_path / "checkpoints" / "step-000002" / "state.json").read_text())
    assert "0.37" in json.dumps(state["progress"]["optimizer"])
