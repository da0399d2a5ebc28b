"""Whether an imported network gives the original's outputs."""

from __future__ import annotations

import copy

import torch
from torch import nn

from dmask_mobile.errors import DmaskError, code_of_user
from dmask_mobile.importing.network import ImportedNetwork
from dmask_mobile.nets.build import ChildNetwork

MOST = 1e-5  # of the range of the original's outputs, in float32


def child_network(imported: ImportedNetwork) -> ChildNetwork:
    """The imported network with its weights, in evaluation mode."""
    network = ChildNetwork(imported.child)
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **imported.state})
    return network.eval()


@torch.no_grad()
def difference(model: nn.Module, network: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> float:
    """The largest difference of two networks' outputs on two random images, as a share of the outputs' range."""
    x = torch.randn(2, *shape[1:], generator=torch.Generator().manual_seed(0)).to(dtype)
    with code_of_user(f"model '{type(model).__name__}': its outputs on a batch of 2 images", "correct the model"):
        expected = copy.deepcopy(model).to(dtype).eval()(x)
    found = copy.deepcopy(network).to(dtype).eval()(x)
    scale = float(expected.max() - expected.min())
    return float((found - expected).abs().max()) / max(scale, torch.finfo(dtype).tiny)


def check_outputs(model: nn.Module, imported: ImportedNetwork) -> float:
    """The difference from the original's outputs.

    Raises:
        DmaskError: when it is more than 1e-5 of their range.
    """
    found = difference(model, child_network(imported), imported.child.input_shape, torch.float32)
    if not found <= MOST:
        raise DmaskError(
            f"the imported network's outputs differ from the original's by {found:.1e} of their range, more than"
            f" {MOST:g}",
            "import a network that runs its modules in the order in which it holds them, and does nothing between them",
        )
    return found
