"""What the reduction of logits to rows costs on a device, beside what bounds it.

    python -m benchmarks.reduction --device cuda --save

Modules: cases (targets and sizes), ways (the reductions and the stock way, as functions), oracle (float64 truth),
timing. Needs numpy and torch alone, and Triton or numba for the kernels of the device.
"""
