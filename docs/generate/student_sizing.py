"""Generate the tables of students in docs/sizing.md: memory, speed and limits, by arithmetic from counted bytes and passes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from docs.generate.measurements.results import origin, read, table

BEGIN = "<!-- students: begin (written by `python -m docs.generate`) -->"
END = "<!-- students: end -->"
GPUS = (8, 64, 512)
STEP = "train_v151936_cuda"
STORE = "store_k64_v151936"
# Given: a GPU of 80 GB with so many dense bfloat16 operations a second, and its share of the network between nodes of 8.
GPU_BYTES, PEAK, NETWORK, NODE = 80e9, 989e12, 50e9, 8
# Tokens that a rank computes at a time, with activations checkpointed.
TOKENS = 8192
# Of bfloat16 training: weights, float32 sums of gradients, and float32 weights with two moments.
WEIGHT, GRADIENT, STATE = 2, 4, 12
# Bytes of host memory a weight that rank 0 takes while it loads a model: those of the file, in bfloat16.
HOST = 2
# Bytes of one layer's activations, a token and unit of width, without scores of attention (arXiv 2205.05198, table 2).
LAYER = 34
# float32 logits of a block of rows, one and a half times (student/losses/head/fused_loss.py).
LOSS_BYTES = 1.5 * 4 * (1 << 28)
# Left to fragments and the library of collectives.
RESERVE = 6e9
LONG = 131_072


@dataclass(frozen=True, slots=True)
class Student:
    """Shape of a published model. parameters: all of them; layers, width: of its decoder. kv: heads of keys and values."""

    name: str
    parameters: float
    layers: int
    width: int
    heads: int
    kv: int

    def activations(self, tokens: float) -> float:
        """Bytes of what checkpointing keeps of each layer, of one layer that is computed again, and of the loss."""
        return 2 * self.layers * tokens * self.width + LAYER * tokens * self.width + LOSS_BYTES

    def stage(self, gpus: int, tokens: float) -> tuple[int, float]:
        """The lowest ZeRO stage that fits a GPU, and its bytes; 0 and the bytes of stage 3 if none does."""
        fixed = {
            2: WEIGHT + (GRADIENT + STATE) / gpus,
            3: (WEIGHT + GRADIENT + STATE) / gpus,
        }
        for stage, each in fixed.items():
            size = self.parameters * each + self.activations(tokens)
            if size + RESERVE <= GPU_BYTES:
                return stage, size
        return 0, self.parameters * fixed[3] + self.activations(tokens)


STUDENTS = (
    Student("Llama-3.2-1B", 1.24e9, 16, 2048, 32, 8),
    Student("Qwen2.5-7B", 7.62e9, 28, 3584, 28, 4),
    Student("Llama-3.1-70B", 70.6e9, 80, 8192, 64, 8),
)


def tables() -> str:
    """The tables as Markdown."""
    head = (
        "student",
        "GPUs",
        "ZeRO",
        "GB a GPU",
        "GB of rank 0 at the start",
        "tokens/s",
        "10^10 tokens",
        "MB/s of the store",
        "cores that decode",
        "limit",
    )
    long_head = ("student", "ranks that share an example", "tokens a rank", "ZeRO on 64 GPUs", "GB a GPU")
    return (
        f"{table(head, list(_rows()))}\n\nExamples of {LONG:,} tokens (`run.sequence_parallel`):\n\n"
        f"{table(long_head, list(_long_rows()))}\n\n{origin([STEP, STORE])}"
    )


def _utilisation() -> float:
    """Share of the peak that a student's step had where it was measured, on one GPU without checkpointing."""
    result: dict[str, Any] = read(STEP)
    seconds = result["losses"]["forward_kl"]["step_seconds"]["median"]
    return float(6 * result["parameters"] * result["tokens"] / seconds / PEAK)


def _rows() -> Iterator[tuple[str, ...]]:
    store = read(STORE)
    for student in STUDENTS:
        for gpus in GPUS:
            stage, size = student.stage(gpus, TOKENS)
            host = f"{HOST * student.parameters / 1e9:,.0f}"
            if not stage:
                yield (student.name, f"{gpus}", "none fits", f"{size / 1e9:.0f}", host, "", "", "", "", "memory")
                continue
            # Checkpointing computes each layer forwards twice: 8 operations a weight in place of 6.
            computing = 8 * student.parameters * TOKENS / (_utilisation() * PEAK)
            # Weights are gathered for each pass at stage 3 and once at stage 2; gradients are summed in float32.
            passes = 3 if stage == 3 else 1
            moved = student.parameters * (passes * WEIGHT + GRADIENT)
            sending = moved / NETWORK if gpus > NODE else 0.0
            rate = gpus * TOKENS / max(computing, sending)
            limit = "network" if sending > computing else "arithmetic"
            yield (
                student.name,
                f"{gpus}",
                f"{stage}",
                f"{size / 1e9:.0f}",
                host,
                f"{rate:,.0f}",
                f"{1e10 / rate / 3600:,.1f} h",
                f"{rate * store['bytes_per_token'] / 1e6:,.0f}",
                f"{rate / store['training_tokens_per_cpu_s']:.2f}",
                limit,
            )


def _long_rows() -> Iterator[tuple[str, ...]]:
    for student in STUDENTS:
        for ranks in (1, 2, 4, 8, 16, 28):
            tokens = LONG / ranks
            if student.heads % ranks or (ranks % student.kv and student.kv % ranks):
                continue
            stage, size = student.stage(64, tokens)
            yield (
                student.name,
                f"{ranks}",
                f"{tokens:,.0f}",
                f"{stage}" if stage else "none fits",
                f"{size / 1e9:.0f}",
            )
