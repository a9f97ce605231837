"""pggrpo export: a model folder for transformers and others from a run: pggrpo export RUN OUT."""

from __future__ import annotations

import sys
from pathlib import Path

from pggrpo_cli.errors import UsageError
from pggrpo_cli.options import Options

HELP = """\
usage: pggrpo export RUN|CHECKPOINT OUT [--checkpoint best|last|step-N] [--dtype float32|bfloat16] [--force] [--hub ID]

Writes the folder OUT: weights in safetensors, configuration, tokenizer with its chat template, generation
configuration, and a card (README.md) with method, data, metrics, command and versions, without paths and secrets.
The checkpoint's checksums are verified first; what was written is read back by transformers and must give the
checkpoint's logits, bit for bit. OUT is whole or not there.

  --checkpoint C   best (the default, if one was kept), last, or step-N
  --dtype D        float32 or bfloat16; the default is the checkpoint's own
  --force          replace OUT if it is a model folder already
  --hub OWNER/NAME push it as well, as a private repository (needs HF_TOKEN or `hf auth login`)

examples:
  pggrpo export outputs/2026-11-23/12-00-00-train-1a2b3c my-model
  pggrpo export outputs/2026-11-23/12-00-00-train-1a2b3c my-model --checkpoint last --dtype bfloat16
  pggrpo train model=hf model.path=my-model
"""


def main(arguments: list[str]) -> int:
    if not arguments or set(arguments) & {"-h", "--help"}:
        print(HELP, end="")
        return 0 if arguments else 2
    options = Options("export")
    options.add_argument("source", metavar="RUN|CHECKPOINT")
    options.add_argument("out", metavar="OUT")
    options.add_argument("--checkpoint")
    options.add_argument("--dtype", choices=("float32", "bfloat16"))
    options.add_argument("--force", action="store_true")
    options.add_argument("--hub")
    given = options.parse_intermixed_args(arguments)
    export(given.source, given.out, checkpoint=given.checkpoint, dtype=given.dtype, force=given.force, hub=given.hub)
    return 0


def export(
    source: str | Path,
    out: str | Path,
    *,
    checkpoint: str | None = None,
    dtype: str | None = None,
    force: bool = False,
    hub: str | None = None,
) -> Path:
    """The same as `pggrpo export`, from Python; the folder. Raises PggrpoError before `out` is touched."""
    from pggrpo_cli.exporting.export_source import clean_leftovers, find_source, refuse_full_disk, refuse_target

    origin, folder = Path(source).expanduser(), Path(out).expanduser()
    if not str(out).strip() or not folder.absolute().name:
        raise UsageError(f"`OUT`: {str(out)!r} is no name of a folder. Give one that is not there yet.")
    clean_leftovers(folder)
    refuse_target(folder, origin, force=force)
    if hub is not None:
        from pggrpo_cli.exporting.hub import refuse_push

        refuse_push(hub)
    found = find_source(origin, checkpoint)
    if dtype is None:
        refuse_full_disk(found.checkpoint, folder)
    print(f"checkpoint: {found.checkpoint} ({found.chosen}); its checksums match", flush=True)
    if sys.stderr.isatty():
        print("loading torch …", end="\r", file=sys.stderr, flush=True)
    from pggrpo_cli.exporting.hf_folder import export_folder
    from pggrpo_cli.exporting.model_card import model_card

    name = hub or folder.absolute().name
    done = export_folder(found.checkpoint, folder, dtype, lambda kind: model_card(found, name, kind))
    tied = ", input and output embeddings tied" if done.tied else ""
    print(f"written: {done.tensors} tensors in {done.dtype}{tied}; {done.files} files, {done.gigabytes:.3g} GB")
    print(f"read back: the same tensors, and the same logits for a prompt of {done.prompt_tokens} tokens, bit for bit")
    if hub is None:
        print(f"{folder} is ready: pggrpo train model=hf model.path={folder}")
        return folder
    from pggrpo_cli.exporting.hub import push

    print(f"{folder} is ready and pushed to {push(folder, hub)}")
    return folder
