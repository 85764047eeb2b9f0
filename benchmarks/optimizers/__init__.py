"""What an update costs with each optimizer, and what a student has learned after as many steps.

    python -m benchmarks.optimizers --save
    python -m benchmarks.optimizers --job cluster/jobs/medical_conversation/teacher.toml --steps 110 --save

An update is timed for a random Llama with random gradients, in float32. The limit changes as many bytes in place as
AdamW reads and writes, 28 a parameter, in one pass. The peer is PyTorch's AdamW as it comes, which passes over memory
once an operation. With --job, a training job is run with each optimizer, and the loss is the mean over its last ten
steps.
"""
