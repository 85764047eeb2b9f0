"""How far the rows of two stores are from one another, example by example.

In: two opened stores with the same tokenizer. Out: StoreComparison.

Public names: store_comparison.compare_stores, store_comparison.StoreComparison.
"""
