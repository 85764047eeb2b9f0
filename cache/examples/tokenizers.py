"""Tokenizers of Hugging Face: how to load one, the part of it that this project uses, and a digest to compare two.

Everything that needs a tokenizer loads it here, so that a name or a folder means the same to teacher, student and
report. Transformers is imported when a tokenizer is loaded, not before.
"""

import json
import tempfile
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
    def convert_ids_to_tokens(self, ids: Any) -> Any: ...


def load_tokenizer(name_or_path: str | Path, trust_remote_code: bool = False, what: str = "tokenizer") -> Any:
    """Load a tokenizer (transformers.PreTrainedTokenizerBase) from a model folder or by a name on the hub.

    trust_remote_code: allow code that comes with the model to run. what: the setting that the error message names.
    Raises InputError if it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        # The flag is always given: without it Transformers asks on the terminal.
        return AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code)
    except Exception as error:  # the files of a tokenizer may raise anything
        reason = _plain_reason(name_or_path, error)
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{what} {str(name_or_path)!r}: contains Python code of its own, which is not run; set "
                "trust_remote_code = true in the table that names it, if you trust the code"
            ) from None
        raise InputError(
            f"{what} {str(name_or_path)!r}: cannot be loaded; give a model folder or hub name ({reason})"
        ) from error


def _plain_reason(name_or_path: str | Path, error: Exception) -> str:
    """Why a tokenizer could not be loaded: by what is there, or by the message of the library."""
    folder = Path(name_or_path)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            return "the folder has neither tokenizer.json nor tokenizer_config.json"
    elif isinstance(error, OSError) and "trust_remote_code" not in str(error):
        return "there is no such folder, and no hub that answers has it"
    return one_line(error)


def one_line(error: Exception) -> str:
    """The message of an error of another library, in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash of everything that turns text into ids, and of nothing else. Equal digests mean equal ids.

    How ids become text, and the limits and padding that a user of the tokenizer has set, are no part of it. Raises
    InputError for a slow tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{type(tokenizer).__name__} is a slow tokenizer without offsets; use a fast one (tokenizer.json)"
        )
    fields = json.loads(backend.to_str())
    for name in ("version", "truncation", "padding", "decoder"):
        fields.pop(name, None)
    fields["added_tokens"] = sorted(fields.get("added_tokens", []), key=lambda token: int(token["id"]))
    return digest(fields)


def tokenizer_files(tokenizer: Any) -> dict[str, bytes]:
    """The files of a fast tokenizer, by name. They need no code of its own.

    Raises InputError if they would be read as another tokenizer.
    """
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        **tokenizer.special_tokens_map,
    )
    with tempfile.TemporaryDirectory() as name:
        # In a file of its own a template would lose the line ends of Windows.
        plain.save_pretrained(name, save_jinja_files=False)
        again = load_tokenizer(name)
        has_same_ids = tokenizer_digest(again) == tokenizer_digest(tokenizer)
        if not has_same_ids or chat_templates(again) != chat_templates(tokenizer):
            raise InputError(f"tokenizer {tokenizer.name_or_path!r}: its saved files are read as another tokenizer")
        root = Path(name)
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def chat_templates(tokenizer: Tokenizer) -> dict[str, str]:
    """The chat templates of a tokenizer by their names. A single one is the default; "" if there is none."""
    template = tokenizer.chat_template
    return dict(template) if isinstance(template, dict) else {"default": template or ""}


def vocabulary_difference(tokenizer: Any, other: Any) -> str:
    """How the ids of two tokenizers differ, in words; "" if an id of the first means the same in the other.

    A token that was added to the first may have another name in the other, or none: models of one family rename tokens
    that are reserved, and add tokens behind the others.
    """
    others, added, other_added = other.get_vocab(), tokenizer.get_added_vocab(), set(other.get_added_vocab().values())
    ordinary = set(others.values()) - other_added
    for token, id_ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if others.get(token) == id_ or (token in added and token not in others and id_ not in ordinary):
            continue
        where = f"id {others[token]}" if token in others else "no token"
        return f"token {token!r} is id {id_} in the one, and {where} in the other"
    return ""


def decode(tokens: npt.NDArray[np.uint32], tokenizer: Tokenizer) -> str:
    """Text of token ids [n], without special tokens."""
    return str(tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
