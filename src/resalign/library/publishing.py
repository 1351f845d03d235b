"""The upload of an exported model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from resalign.errors import DataError


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Uploads a complete export, in one commit, to a repository that is made if it is not there.

    The token is read where ``huggingface_hub`` reads it: ``HF_TOKEN``, or a login.

    Args:
        folder: An export: a folder with a ``README.md``.
        repository: ``owner/name``.
        private: Whether a new repository is private; an existing one stays as it is.

    Returns:
        The address of the commit.

    Raises:
        DataError: If the folder is no complete export, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if not (folder / "README.md").is_file():
        raise DataError(f"{folder}: no complete export (README.md is missing); export the model again")
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return str(
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload by resalign").commit_url
        )
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        raise DataError(f"{repository}: the hub refused the upload ({error}); check its name and HF_TOKEN") from None
