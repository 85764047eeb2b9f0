"""Sentence embeddings by a Transformers encoder: the mean of the last hidden states, of length 1."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.tokenizers import one_line

Vectors = npt.NDArray[np.float32]
BATCH = 64
MAX_TOKENS = 256


class Encoder:
    """A sentence encoder such as all-MiniLM-L6-v2. Each text is embedded once and kept in memory.

    Has the two methods of LangChain's Embeddings, so that it can stand where LangChain expects one.
    """

    def __init__(self, path: str) -> None:
        """Load the model. path: folder or hub name. Raises InputError if it cannot be loaded."""
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            self._model: Any = AutoModel.from_pretrained(path, trust_remote_code=False).eval()
        except Exception as error:  # the files of a model may raise anything
            raise InputError(
                f"task.encoder = {path!r}: no sentence encoder can be read from it: {one_line(error)}; "
                "`python -m environment.models minilm` makes runs/encoders/all-MiniLM-L6-v2"
            ) from error
        self._vectors: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length 1, float32 [texts, width]. Only the first MAX_TOKENS tokens of a text are read."""
        missing = sorted({text for text in texts if text not in self._vectors}, key=len)
        for first in range(0, len(missing), BATCH):
            batch = missing[first : first + BATCH]
            for text, vector in zip(batch, self._encode(batch), strict=True):
                self._vectors[text] = vector
        return np.stack([self._vectors[text] for text in texts])

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [vector.tolist() for vector in self.embed(texts)] if texts else []

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = self.embed([text])[0].tolist()
        return vector

    def _encode(self, texts: list[str]) -> Vectors:
        import torch

        with torch.inference_mode():
            inputs = self._tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            hidden = self._model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            vectors: Vectors = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return vectors


@lru_cache(maxsize=2)
def load_encoder(path: str) -> Encoder:
    """The encoder, loaded once in a process."""
    return Encoder(path)
