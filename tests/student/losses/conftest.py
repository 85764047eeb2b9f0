"""A teacher's law and a student's logits of a few rows."""

import pytest
from torch import Tensor

from tests.student.losses.dense import random_law, random_logits

V, R = 40, 12


@pytest.fixture
def log_p() -> Tensor:
    return random_law(R, V, 0)


@pytest.fixture
def logits() -> Tensor:
    return random_logits(R, V, 1, 1.0)
