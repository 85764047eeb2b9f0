"""Compare two reductions of the same rows, at the start of a capture."""

import numpy as np

from teacher_serving.reduction.rows import Rows

# Greatest accepted difference in nats between kernels and torch.
MAX_KERNEL_DIFFERENCE = 1e-4


def difference_between(ours: Rows, theirs: Rows) -> str:
    """How rows of the compiled kernels differ from those of torch; "" if they agree."""
    if not np.array_equal(ours.targets.exact_counts, theirs.targets.exact_counts):
        return "the compiled kernels keep other numbers of entries than torch"
    for name in ("log_tail", "entropy", "log_normalizers", "token_logprobs"):
        one, two = (getattr(rows if name == "token_logprobs" else rows.targets, name) for rows in (ours, theirs))
        if one is not None and not np.allclose(one, two, rtol=0, atol=MAX_KERNEL_DIFFERENCE):
            return f"{name} of the compiled kernels and of torch differ by {np.abs(one - two).max():.2g}"
    for i in range(len(ours.targets)):
        one, two = (rows.targets.rows(i, i + 1) for rows in (ours, theirs))
        n = int(one.exact_counts[0])
        # Logits differ in the last digit, which may move a draw to the id beside it.
        moved = len(set(one.ids[n:].tolist()) ^ set(two.ids[n:].tolist()))
        if moved > 2 or not np.array_equal(one.ids[:n], two.ids[:n]):
            return "the compiled kernels keep other token ids than torch"
        if not np.allclose(one.logprobs[:n], two.logprobs[:n], rtol=0, atol=MAX_KERNEL_DIFFERENCE):
            return "log-probabilities of the compiled kernels and of torch differ"
    return ""
