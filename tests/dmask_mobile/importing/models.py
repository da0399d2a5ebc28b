"""Models of other libraries with weights in which no zero or one hides anything."""

from __future__ import annotations

import torch
from torch import nn

from dmask_mobile.importing.sources import open_model


def random_model(source: str) -> nn.Module:
    """The model in evaluation mode, every norm's statistics, scales and shifts and every bias being random."""
    model = open_model(source).model
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif name.endswith("running_mean"):
                value.normal_(0, 0.3, generator=generator)
            elif value.dim() == 1:
                value.add_(torch.empty_like(value).normal_(0, 0.1, generator=generator))
    return model.eval()
