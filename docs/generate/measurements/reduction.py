"""The reduction of logits to rows on a GPU, beside one read of the logits."""

from typing import Any

from docs.generate.measurements.results import origin, read, table

FILES = ("reduction_cuda",)

TEXT = """\
Time to reduce {rows:,} rows of logits that lie in the memory of one {device}. *Read* is one read of these logits at the
{read:.1f} TB/s that a sum reaches there. *Ours* are the Triton kernels when ten blocks wait in the queue; one block alone
also waits for the host. The result file has that time too, and the time of each kernel. *Torch* is the same reduction in
plain torch, for GPUs without the kernels. *Stock* is `log_softmax` in float32 and `torch.topk`, without tails. *Product* is
the matrix product with a head of width 4,096 that made the logits (float32 without TF32). Before it was timed, each result
was compared with float64, and a second run had to give the same bits. Bytes a logit are counted, not measured: logits, what
chunks need, and rows.

Entropies and temperatures were measured with 8 warps in a program of the first kernel; it has 4 now.
A whole capture with these kernels is in the section before.
"""


def section() -> str:
    head = (
        "vocabulary",
        "dtype",
        "targets",
        "read",
        "ours",
        "read ÷ ours",
        "bytes a logit",
        "torch",
        "stock",
        "product",
    )
    result = read(FILES[0])
    ways: dict[tuple[int, str, str], dict[str, dict[str, Any]]] = {}
    rows = []
    for case in result["cases"]:
        ways.setdefault((case["vocab"], case["dtype"], case["mode"]), {})[case["way"]] = case
    for (vocab, dtype, mode), case in ways.items():
        ours, stock = case["triton"], case.get("log_softmax and torch.topk")
        median = ours["queued"]["median"]
        rows.append(
            (
                f"{vocab:,}",
                dtype,
                mode,
                f"{ours['read_floor'] * 1e3:.3f} ms",
                f"{median * 1e3:.3f} ms",
                f"{ours['read_floor'] / median:.2f}",
                f"{ours['bytes_per_logit']:.2f}",
                f"{case['torch']['seconds']['median'] * 1e3:.2f} ms",
                f"{stock['seconds']['median'] * 1e3:.2f} ms" if stock else "",
                f"{ours['matrix_product'] * 1e3:.2f} ms",
            )
        )
    text = TEXT.format(rows=result["rows"], device=result["device"], read=result["bandwidth"]["read"] / 1e12)
    return f"## Reduction on a GPU\n\n{text}\n{table(head, rows)}\n\n{origin(FILES)}\n"
