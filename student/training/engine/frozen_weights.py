"""A checksum of the weights that a run does not train. Its checkpoints do not contain them."""

import google_crc32c
import torch
from torch import nn

# Elements that are copied at a time.
PART = 1 << 24


def frozen_checksum(model: nn.Module) -> str | None:
    """Checksum of names, shapes and values of all frozen parameters; None if there are none. Call it before ZeRO.

    bfloat16 weights are read as float32, so that it is the same however they were loaded.
    """
    frozen = [(name, parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if not frozen:
        return None
    checksum = 0
    for name, parameter in frozen:
        dtype = torch.float32 if parameter.dtype is torch.bfloat16 else parameter.dtype
        checksum = google_crc32c.extend(checksum, f"{name} {tuple(parameter.shape)} {dtype}".encode())
        for part in torch.split(parameter.detach().flatten(), PART):
            checksum = google_crc32c.extend(checksum, part.to("cpu", dtype).view(torch.uint8).numpy().tobytes())
    return f"{checksum:08x}"
