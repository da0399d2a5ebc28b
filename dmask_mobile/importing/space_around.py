"""The search space around a network: everything that it can be made smaller by, the network itself being the widest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.names import as_name
from dmask_mobile.records.space import MAX_SPACE_NAME, SearchSpace

HIDDEN_SHARES = (0.25, 0.5, 0.75)  # of the original's hidden width
WIDTH_SHARES = (0.5, 0.75)  # of a residual stage's, the stem's, the last convolution's
RESOLUTION_SHARES = (4 / 7, 5 / 7, 6 / 7)  # of 224 px: 128, 160, 192
MULTIPLE, RESOLUTION_MULTIPLE = 8, 32
KERNELS = (3, 5, 7)


def space_around(
    child: ChildSpec, origin: str, normalization: tuple[Sequence[float], Sequence[float]], crop: float = 1.0
) -> SearchSpace:
    """The space whose widest child is ``child``.

    Args:
        child: the given network.
        origin: where it comes from.
        normalization: mean and deviation of each channel of its images.
        crop: the share of their shorter side that the central square keeps.

    Raises:
        DmaskError: when the network has a form that no space has.
    """
    stem, *middle, head = child.blocks
    last = middle.pop() if len(middle) > 1 and _is_last(middle[-1]) else None
    if not middle:
        raise DmaskError("the network has no block between its first convolution and its classifier")
    mean, std = normalization
    space = SearchSpace.model_validate(
        {
            "name": as_name(child.name, MAX_SPACE_NAME),
            "classes": child.classes,
            "input": {
                "channels": child.in_channels,
                "resolutions": _shares(child.resolution, RESOLUTION_SHARES, RESOLUTION_MULTIPLE),
                "mean": tuple(mean),
                "std": tuple(std),
                "crop": crop,
            },
            "stem": {
                "widths": _shares(stem.out_width, WIDTH_SHARES),
                "kernel": stem.kernel,
                "stride": stem.stride,
                "activation": stem.activation,
            },
            "stages": _stages(middle),
            "last": last and {"widths": _shares(last.out_width, WIDTH_SHARES), "activation": last.activation},
            "head": {"hidden_widths": _shares(head.hidden_width, WIDTH_SHARES), "activation": head.activation}
            if head.hidden_width
            else None,
            "norm_eps": stem.norm_eps,
            "padding": stem.padding,
            "origin": origin,
        }
    )
    if space.child(space.largest()).digest() != child.digest():
        raise DmaskError(
            f"'{child.name}' has a form that no space has", "import a network whose shortcuts keep the width and size"
        )
    return space


def _is_last(block: BlockSpec) -> bool:
    return block.kind == "conv" and (block.kernel, block.stride, block.residual) == (1, 1, False)


def _stages(blocks: Sequence[BlockSpec]) -> list[dict[str, Any]]:
    """A stage for each run of blocks that shortcuts bind to one width."""
    stages: list[dict[str, Any]] = []
    for block in blocks:
        if not block.residual:
            stages.append({"widths": _shares(block.out_width, WIDTH_SHARES), "blocks": []})
        elif not stages:
            stages.append({"widths": (), "blocks": []})
        stages[-1]["blocks"].append(_options(block))
    return stages


def _options(block: BlockSpec) -> dict[str, Any]:
    """What one block may become."""
    kernels = _kernels(block.kernel) if block.depthwise and block.kind != "conv" else (block.kernel,)
    return {
        "kind": block.kind,
        "hidden_widths": _shares(block.hidden_width, HIDDEN_SHARES) if block.hidden_width and block.expand else (),
        "kernels": kernels if block.depthwise else (),
        "start_kernels": _kernels(block.start_kernel) if block.start_kernel else (),
        "stride": block.stride,
        "squeeze_widths": (0, block.se_width) if block.se_width else (0,),
        "se_gate": block.se_gate,
        "se_activation": block.se_activation,
        "activation": block.activation,
        "shortcut": block.residual,
        "skip": block.residual,
    }


def _kernels(largest: int) -> tuple[int, ...]:
    return (*(kernel for kernel in KERNELS if kernel < largest), largest)


def _shares(whole: int, shares: Sequence[float], multiple: int = MULTIPLE) -> tuple[int, ...]:
    """Multiples of a number near shares of a whole, and the whole itself.

    >>> _shares(112, (0.25, 0.5, 0.75))
    (32, 56, 88, 112)
    """
    found = {max(multiple, int(share * whole / multiple + 0.5) * multiple) for share in shares}
    return (*sorted(size for size in found if size < whole), whole)
