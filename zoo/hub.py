"""Uploads a model folder to the Hugging Face hub."""

import re
from pathlib import Path

from registry import UserError, first_sentences


def check_repository(repository: str) -> None:
    """Check that a repository name has the form ``OWNER/NAME``.

    Raises:
        UserError: it does not.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"--push {repository}: a repository name has the form OWNER/NAME")


def push_model(folder: Path, repository: str) -> str:
    """Upload a model folder to a hub repository, creating a private one if it does not exist.

    Args:
        folder: written by `write_folder` or `copy_model`.
        repository: ``OWNER/NAME``.

    Returns:
        The URL of the commit.

    Raises:
        UserError: the name is invalid, you are not logged in, or the upload failed.
    """
    import huggingface_hub

    check_repository(repository)
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Model exported by lamzoo",
            allow_patterns=["*.safetensors", "*.json", "*.onnx", "README.md"],
        )
    except Exception as error:  # errors of the hub, and of three libraries when the network fails
        raise UserError(
            f"upload to {repository} failed ({first_sentences(error)}); {folder} is complete; log in (hf auth login) "
            "and export again"
        ) from error
    return str(done.commit_url)
