"""Compact classifiers: small models of this project that read a text and give logits over classes.

Importing this package registers the model type "logitbank_compact" with Transformers.
"""

from student.models.kinds.compact_classifier.kind import STUDENT_KIND
from student.models.kinds.compact_classifier.model import CompactClassifier, CompactConfig

__all__ = ["STUDENT_KIND", "CompactClassifier", "CompactConfig"]
