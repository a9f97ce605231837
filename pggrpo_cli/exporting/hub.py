"""An exported folder, pushed to the Hugging Face hub (or to whatever HF_ENDPOINT names)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pggrpo_cli.errors import UsageError

REPOSITORY = r"[\w.-]+/[\w.-]+"


def refuse_push(repository: str) -> None:
    """Raises UsageError for what can be known before anything is written: a bad name, offline mode, no token."""
    if not re.fullmatch(REPOSITORY, repository):
        raise UsageError(f"`--hub`: {repository!r} is no name of a repository; write OWNER/NAME.")
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        raise UsageError("`--hub`: HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it, or leave --hub out.")
    if get_token() is None:
        raise UsageError(
            "`--hub`: there is no access token. Log in with `hf auth login`, or set HF_TOKEN to one that may write."
        )


def push(folder: Path, repository: str) -> str:
    """Creates the repository, private, if it is not there, and uploads the folder as one commit; its address.

    Raises UsageError naming what the hub said.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Exported by pggrpo")
    except (HfHubHTTPError, HTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"`--hub`: {repository} could not be pushed to {api.endpoint}: {reason}. {folder} is whole; to try again: "
            f"hf upload {repository} {os.path.relpath(folder)}"
        ) from error
    return str(address)
