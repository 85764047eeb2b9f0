"""Retrieval of passages: questions in, ranked recipes and passages out.

    embeddings.py  an encoder of sentences through Transformers, as LangChain's Embeddings
    bm25.py        Okapi BM25 over words: the baseline
    langchain.py   parent documents and contextual compression, with LangChain's retrievers
    ranking.py     recall@k and reciprocal rank
    retriever.py   one interface for all methods

Knows nothing of prompts and of the data sets' files. LangChain, scikit-learn and torch are imported when they are used.
"""
