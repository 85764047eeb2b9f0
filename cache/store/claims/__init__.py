"""What a store has once: the codebook and the teacher's tokenizer. The first writer claims each, and all others use it.

codebook_claim    the codebook of the compact profile
tokenizer_files   the tokenizer with which the store was captured
"""
