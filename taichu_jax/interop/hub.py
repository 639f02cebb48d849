"""Where a model of the Hugging Face hub lies on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from taichu_jax.errors import UserError

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model")  # never a pickle, never code


def local_folder(name: str, revision: str | None = None) -> Path:
    """The folder `name`, or else the model of this id, fetched from the hub if it is not here yet.

    Args:
      name: a folder, or 'owner/name' or 'name'.
      revision: a branch, tag or commit of the hub; None for the newest.

    Raises:
      UserError: there is neither, or it cannot be fetched.
    """
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise UserError(f"hf:{name}: no such folder, and no id of the hub (OWNER/NAME)")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"hf:{name}: no such folder; to fetch models from the hub: pip install huggingface_hub"
        ) from error
    try:
        found = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(PATTERNS)
        )
    except Exception as error:  # of many kinds: no network, no such model, no access, a full disk
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"hf:{name}: no such folder, and the hub gives nothing: {reason}"
        ) from error
    return Path(found)
