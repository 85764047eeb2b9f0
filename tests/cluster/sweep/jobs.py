"""Job files for sweeps of a tiny training."""

from pathlib import Path

TRAIN = """
output = "unused"
[data]
store = "store"
[model.config]
model_type = "llama"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 2
intermediate_size = 48
tie_word_embeddings = true
[optimizer]
lr = 0.003
warmup_steps = 2
[run]
steps = 12
batch_size = 8
micro_batch_size = 4
ranks = 1
zero_stage = 0
checkpoint_every = 4
[tracking]
tensorboard = false
[heldout]
store = "store"
every = 2
"""


def write_jobs(root: Path) -> None:
    """train.toml for the store root/store."""
    (root / "train.toml").write_text(TRAIN)
