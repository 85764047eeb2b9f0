"""Tokenizers of Hugging Face: how to load one, the part of it that this project uses, and a digest to compare two.

Everything that needs a tokenizer loads it here, so that a name or a folder means the same to teacher, student and
report. Transformers is imported when a tokenizer is loaded, not before.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.json_documents import digest


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that rendering and capture use."""

    chat_template: Any
    bos_token_id: Any
    eos_token_id: Any
    unk_token_id: Any

    def get_chat_template(self, chat_template: Any = None, tools: Any = None) -> str: ...
    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...
    def __call__(self, text: str, **options: Any) -> Any: ...
    def decode(self, token_ids: Any, **options: Any) -> Any: ...


def load_tokenizer(name_or_path: str | Path, trust_remote_code: bool = False, what: str = "tokenizer") -> Any:
    """Load a tokenizer (transformers.PreTrainedTokenizerBase) from a model folder or by a name on the hub.

    trust_remote_code: allow code that comes with the model to run. what: the setting that the error message names.
    Raises InputError if it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{what} {str(name_or_path)!r}: cannot be loaded; give a model folder or hub name ({error})"
        ) from error


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash of everything that turns text into ids. Tokenizers with equal digests produce equal ids.

    Raises InputError for a slow tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{type(tokenizer).__name__} is a slow tokenizer without offsets; use a fast one (tokenizer.json)"
        )
    return digest(backend.to_str())


def decode(tokens: npt.NDArray[np.uint32], tokenizer: Tokenizer) -> str:
    """Text of token ids [n], without special tokens."""
    return str(tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
