"""What runs on a machine that has PyTorch and Transformers alone, such as an image for an accelerator.

A process in which the heavy libraries cannot be imported stands in for that machine.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = '''
import sys
from pathlib import Path

HEAVY = {"vllm", "numba", "llvmlite", "ray", "deepspeed", "peft", "rdkit", "pcodec", "tensorboardX"}


class Absent:
    """Finds no heavy library, as on a machine without them."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())

import cache, logitbank, student, student.losses, teacher_serving.reduction
from importlib import import_module

for path in Path("student/losses").rglob("*.py"):
    import_module(".".join(path.with_suffix("").parts))

import torch
from cache.rows.spec import TargetSpec
from student.losses.head.fused_loss import fused_loss
from student.losses.head.transform import LogitTransform
from student.losses.row_losses import LossTerm
from teacher_serving.reduction.draws import row_uniforms
from teacher_serving.reduction.torch_backend import reduce_block

n, vocabulary = 6, 300
generator = torch.Generator().manual_seed(0)
logits = torch.randn(n, vocabulary, generator=generator)
log_p = logits.double().log_softmax(-1)
following = torch.arange(n)
specs = [
    TargetSpec(k=8, entropy=True, temperatures=(2.0,)),
    TargetSpec("nucleus", k=64, mass=0.9),
    TargetSpec("threshold", threshold=0.01),
    TargetSpec("sampled", draws=20),
]
for spec in specs:
    uniforms = torch.from_numpy(row_uniforms(spec, "ff", following.numpy()))
    block = reduce_block(logits.clone(), following, uniforms, spec)
    assert torch.allclose(block.token_logprobs.double(), log_p[following, following], atol=1e-6), spec
    first = block.ids[:, :1].long()
    if spec.mode != "sampled":
        assert torch.allclose(block.logprobs[:, :1].double(), log_p.gather(1, first), atol=1e-6), spec

hidden = torch.randn(n, 16, generator=generator, requires_grad=True)
head = torch.randn(vocabulary, 16, generator=generator, requires_grad=True)
labels = LossTerm(torch.ones(n), following[:, None], torch.zeros(n, 1))
total, _ = fused_loss(hidden, head, None, LogitTransform(), [labels])
total.backward()
expected = torch.nn.functional.cross_entropy(hidden @ head.T, following, reduction="sum")
assert torch.allclose(total, expected, rtol=1e-5), (total, expected)
assert hidden.grad is not None and head.grad is not None
print("loaded:", sorted(HEAVY & set(sys.modules)))
'''


def test_losses_and_the_torch_reduction_run_without_heavy_libraries() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "loaded: []\n"
