"""Parent documents and contextual compression with LangChain's retrievers.

A recipe is a parent document, its lines are the children that are searched. Compression splits the parents that were
found into lines and keeps the lines that are nearest to the query.
LangChain's own EmbeddingsFilter needs langchain-community and six more packages for one sort, so `_filter_class` is a
compressor of ours with the same interface.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from cache.errors import InputError
from student.tasks.recipe_dialogue.dialogue import Recipe
from student.tasks.recipe_dialogue.retrieval.embeddings import Encoder

MISSING = (
    "retrieval by parent documents needs LangChain; run `pip install 'logitbank[retrieval]'`, or set task.retrieval"
)


class ParentDocuments:
    """Recipes as parent documents of their lines, in memory. lines: children that a query finds."""

    def __init__(self, recipes: Sequence[Recipe], encoder: Encoder, lines: int) -> None:
        """Index all recipes. Raises InputError if LangChain is not installed."""
        try:
            from langchain_classic.retrievers import ParentDocumentRetriever
            from langchain_core.documents import Document
            from langchain_core.stores import InMemoryStore
        except ImportError as error:
            raise InputError(f"{MISSING} ({error})") from None
        self._encoder = encoder
        self._parents = ParentDocumentRetriever(
            vectorstore=_store_class()(_embeddings_class()(encoder)),
            docstore=InMemoryStore(),
            child_splitter=_splitter_class()(),
            search_kwargs={"k": lines},
        )
        documents = [Document(recipe.text, metadata={"recipe": recipe.id}) for recipe in recipes]
        self._parents.add_documents(documents, ids=[recipe.id for recipe in recipes])

    def recipes(self, query: str) -> list[str]:
        """Ids of the recipes of the lines that are nearest to the query, best first."""
        return [document.metadata["recipe"] for document in self._parents.invoke(query)]

    def compressed(self, query: str, documents: int, lines: int) -> list[tuple[str, str]]:
        """The `lines` lines nearest to the query, of the best `documents` recipes: (id of the recipe, text)."""
        from langchain_classic.retrievers import ContextualCompressionRetriever
        from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline

        embeddings = _embeddings_class()(self._encoder)
        compressor = DocumentCompressorPipeline(
            transformers=[
                _first_class()(count=documents),
                _splitter_class()(),
                _filter_class()(embeddings=embeddings, count=lines),
            ]
        )
        retriever = ContextualCompressionRetriever(base_retriever=self._parents, base_compressor=compressor)
        return [(document.metadata["recipe"], document.page_content) for document in retriever.invoke(query)]


@cache
def _embeddings_class() -> Any:
    from langchain_core.embeddings import Embeddings

    class EncoderEmbeddings(Embeddings):
        def __init__(self, encoder: Encoder) -> None:
            self.encoder = encoder

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return self.encoder.embed_documents(texts)

        def embed_query(self, text: str) -> list[float]:
            return self.encoder.embed_query(text)

    return EncoderEmbeddings


@cache
def _store_class() -> Any:
    import numpy as np
    from langchain_core.documents import Document
    from langchain_core.vectorstores import VectorStore

    class MatrixStore(VectorStore):
        """Vectors as one matrix. LangChain's store in memory keeps lists, and converts all of them for each query."""

        def __init__(self, embedding: Any) -> None:
            self.embedding = embedding
            self.documents: list[Any] = []
            self.matrix = np.zeros((0, 0), np.float32)

        def add_texts(self, texts: Any, metadatas: Any = None, **kwargs: Any) -> list[str]:
            new = [Document(text, metadata=data) for text, data in zip(texts, metadatas, strict=True)]
            vectors = self.embedding.encoder.embed([document.page_content for document in new])
            self.matrix = np.concatenate([self.matrix, vectors]) if self.documents else vectors
            self.documents += new
            return [str(i) for i in range(len(self.documents) - len(new), len(self.documents))]

        def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Any]:
            similarity = self.matrix @ self.embedding.encoder.embed([query])[0]
            return [self.documents[i] for i in np.argsort(-similarity, kind="stable")[:k]]

        @classmethod
        def from_texts(cls, texts: Any, embedding: Any, metadatas: Any = None, **kwargs: Any) -> Any:
            store = cls(embedding)
            store.add_texts(texts, metadatas)
            return store

    return MatrixStore


@cache
def _splitter_class() -> Any:
    from langchain_text_splitters import TextSplitter

    class LineSplitter(TextSplitter):
        """A child document for each line."""

        def split_text(self, text: str) -> list[str]:
            return text.splitlines()

    return LineSplitter


@cache
def _first_class() -> Any:
    from langchain_core.documents import BaseDocumentCompressor

    class FirstDocuments(BaseDocumentCompressor):
        """The best documents of a ranking."""

        count: int

        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
            return documents[: self.count]

    return FirstDocuments


@cache
def _filter_class() -> Any:
    import numpy as np
    from langchain_core.documents import BaseDocumentCompressor

    class NearestDocuments(BaseDocumentCompressor):
        """The documents nearest to the query by cosine similarity, best first."""

        embeddings: Any
        count: int

        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
            if not documents:
                return []
            vectors = self.embeddings.encoder.embed([document.page_content for document in documents])
            similarity = vectors @ self.embeddings.encoder.embed([query])[0]
            return [documents[i] for i in np.argsort(-similarity, kind="stable")[: self.count]]

    return NearestDocuments
