"""What the units of a store share: codebooks and the teacher's tokenizer. The first writer claims each.

codebook_claim    the codebooks of the compact profile
codebook_choice   which of them a writer takes, and when it learns another one
tokenizer_files   the tokenizer with which the store was captured
"""
