"""Students that learn from the store: torch, deepspeed, transformers, rdkit. Never imports teacher_serving or Ray."""
