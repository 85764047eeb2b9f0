"""The engine of a run: DeepSpeed around a model, updates that are left out where they are not finite, and checkpoints.

In: a model whose forward pass ends in a loss, settings of optimizer and run, a folder. Out: updated weights, the same
on all ranks, and checkpoints that survive a kill. `deepspeed_engine` is what the loop uses; `config` translates
settings for DeepSpeed; `parameter_groups` says which weights decay; `checkpoints` keeps the files; `frozen_weights`
recognises a base that adapters are trained on; `schedule` gives the learning rate. Knows nothing of losses or data.
"""
