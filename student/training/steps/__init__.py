"""What a step of training is: which examples it has, and how they are divided among ranks and micro-batches.

In: sizes and order of the examples, and what a step and a micro-batch may have at most. Out: numbers of examples, the
same on all ranks without a message between them. Knows nothing of models and losses.
"""
