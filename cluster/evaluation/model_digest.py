"""The digest of a model's folder: it tells whether a result belongs to the model that the folder has now."""

import hashlib
from pathlib import Path


def model_digest(path: str) -> str:
    """SHA-256 in hexadecimal over the names and contents of all files of a model's folder, except its model card.

    If `path` is no folder but a name in a hub: that name.
    """
    folder = Path(path)
    if not folder.is_dir():
        return path
    state = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix != ".md":
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            state.update(f"{file.relative_to(folder)}\0{content}\n".encode())
    return state.hexdigest()
