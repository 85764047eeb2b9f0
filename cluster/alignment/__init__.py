"""Write a store in the tokens of a student whose tokenizer is not the teacher's, once and on many cores.

In: a store, a tokenizer. Out: a store of the same examples, which any student with that tokenizer reads as its own.
`units` aligns and writes one unit, in any process; `driver` gives out the units, here or through Ray.
"""
