"""Which models of timm and torchvision can be taken over as a space, and by how much their outputs differ.

    python benchmarks/imported_models.py [--json] [--size 96] [NAME...]

Weights are random, and so are the norms' statistics, scales and shifts: an ignored part would show. For each model: the
largest difference of the supernet's outputs (every gate at its maximum) from the original's on two random images, as a
share of their range, in float32 and in float64; whether multiply-adds and parameters equal fvcore's count on the
original; or why it was refused. Writes ``benchmarks/results/imported_models.json``.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from record import keep
from torch import nn

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.importing.network import import_network
from dmask_mobile.importing.sources import open_model
from dmask_mobile.importing.space_around import space_around
from dmask_mobile.supernet.supernet import MaskedSupernet
from export.verification.counts import count_fvcore

HALVES = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
TIMM = (
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "tf_efficientnet_lite0", "tf_efficientnet_lite1",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b1_pruned", "efficientnet_b2", "tf_efficientnet_b0",
    "tf_efficientnet_b1", "efficientnet_es", "efficientnet_es_pruned", "efficientnet_em", "tf_efficientnet_es",
    "tf_efficientnetv2_b0", "tf_efficientnetv2_b1", "efficientnetv2_rw_t", "mobilenetv2_035", "mobilenetv2_050",
    "mobilenetv2_075", "mobilenetv2_100", "mobilenetv2_110d", "mobilenetv2_120d", "mobilenetv2_140",
    "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100", "mobilenetv3_large_075",
    "mobilenetv3_large_100", "mobilenetv3_rw", "tf_mobilenetv3_small_100", "tf_mobilenetv3_small_minimal_100",
    "tf_mobilenetv3_large_100", "tf_mobilenetv3_large_minimal_100", "mobilenetv4_conv_small_035",
    "mobilenetv4_conv_small_050", "mobilenetv4_conv_small", "mobilenetv4_conv_medium", "mobilenetv4_conv_large",
    "mnasnet_050", "mnasnet_075", "mnasnet_100", "mnasnet_140", "mnasnet_small", "semnasnet_050", "semnasnet_075",
    "semnasnet_100", "fbnetc_100", "fbnetv3_b", "fbnetv3_d", "spnasnet_100", "hardcorenas_a", "hardcorenas_f",
    "tinynet_a", "tinynet_e", "mobilenet_edgetpu_100", "mobilenetv1_100", "mixnet_s", "mobilenetv4_hybrid_medium",
    "lcnet_100",
)  # fmt: skip
TORCHVISION = (
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_b1",
    "efficientnet_v2_s", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "shufflenet_v2_x1_0",
)  # fmt: skip
NAMES = (*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM))


def randomize(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, with random norms and biases."""
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


@torch.no_grad()
def supernet_difference(model: nn.Module, source: str, size: int, dtype: torch.dtype) -> float:
    """The supernet's outputs with every gate at its maximum against the model's."""
    model = model.to(dtype)
    imported = import_network(model, size, source)
    space = space_around(imported.child, source, HALVES)
    supernet = MaskedSupernet(space).to(dtype).eval()
    supernet.load_state_dict({**supernet.state_dict(), **imported.state})
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2)).to(dtype)
    expected, found = model(x), supernet(x, space.largest())
    return float((found - expected).abs().max() / (expected.max() - expected.min()))


def examine(source: str, size: int) -> dict[str, Any]:
    """What is found of one model."""
    try:
        model = randomize(open_model(source).model)
        child = import_network(model, size, source).child
    except DmaskError as error:
        return {"model": source, "refused": error.problem}
    counts = Macs().estimate(child).value, Params().estimate(child).value
    return {
        "model": source,
        "blocks": len(child.blocks),
        "macs": counts[0],
        "params": counts[1],
        "counts_equal": count_fvcore(model, child.input_shape) == counts,
        "difference_float32": supernet_difference(model, source, size, torch.float32),
        "difference_float64": supernet_difference(model, source, size, torch.float64),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--size", type=int, default=96, help="pixels of the images")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for source in arguments.names:
        row = examine(source, arguments.size)
        rows.append(row)
        if not arguments.json:
            print(
                f"{source:45} {row['refused']}"
                if "refused" in row
                else f"{source:45} {row['blocks']:3} blocks, float32 {row['difference_float32']:.1e},"
                f" float64 {row['difference_float64']:.1e}, counts {'equal' if row['counts_equal'] else 'DIFFER'}",
                flush=True,
            )
    taken = [row for row in rows if "refused" not in row]
    summary = {
        "taken_over": len(taken),
        "refused": len(rows) - len(taken),
        "largest_difference_float32": max((row["difference_float32"] for row in taken), default=None),
        "largest_difference_float64": max((row["difference_float64"] for row in taken), default=None),
        "all_counts_equal": all(row["counts_equal"] for row in taken),
        "size": arguments.size,
    }
    keep("imported_models", {**summary, "models": rows}, arguments.json)


if __name__ == "__main__":
    main()
