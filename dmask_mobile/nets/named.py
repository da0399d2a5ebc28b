"""The published networks that are included as `ChildSpec` files.

Architecture facts: FBNetV2-F1 to F4 (Wan et al., CVPR 2020) and FBNet-C (Wu et al., CVPR 2019), as their authors
published them in the mobile-vision repository.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.child import ChildSpec


def named_children() -> tuple[str, ...]:
    """The names that `named_child` accepts."""
    folder = resources.files("dmask_mobile.nets.children")
    return tuple(sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".json")))


def named_child(name: str) -> ChildSpec:
    """The published network ``name``.

    Raises:
        DmaskError: for a name that is not in `named_children`.
    """
    if name not in named_children():
        raise DmaskError(f"no network named '{name}'", f"the published networks are {', '.join(named_children())}")
    with resources.as_file(resources.files("dmask_mobile.nets.children") / f"{name}.json") as path:
        return ChildSpec.read(path)
