"""Classes: what a teacher's store, or a file of labelled examples, says about the classes of texts.

In: ClassSettings, and a store or examples. Out: ClassSource (texts in the student's tokens, true classes, the teacher's
probabilities of the classes) and ClassBatches for training. A class has the probability of all tokens that its
variants begin with, in the distribution before the answer's first token.
Knows nothing of models and optimizers.

Public names: settings.ClassSettings, source.ClassSource, batches.ClassBatches, probabilities.class_log_probs.
"""
