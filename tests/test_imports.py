"""Imports point one way, and optional packages load inside the functions that use them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    (
        "dmask_mobile.clock",
        "dmask_mobile.errors",
        "dmask_mobile.files",
        "dmask_mobile.interruption",
        "dmask_mobile.progress",
    ),
    ("dmask_mobile.records", "dmask_mobile.spaces"),
    ("dmask_mobile.costs", "dmask_mobile.nets", "dmask_mobile.run"),
    ("export", "dmask_mobile.supernet", "dmask_mobile.training"),
    ("latency_tables", "dmask_mobile.search"),
    ("dmask_mobile.api", "dmask_mobile.cost_names"),
    ("dmask_mobile.cli",),
]
FOLDERS = (  # inside latency_tables, from the top down; what is in none of them is the ground
    ("diagnosis",),
    ("profiling",),
    ("devices", "conversion", "prediction"),
    ("table", "runtimes"),
)
MODULES = sorted(p for package in ("dmask_mobile", "export", "latency_tables") for p in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int | None:
    for number, modules in enumerate(LAYERS):
        if any(module == place or module.startswith(f"{place}.") for place in modules):
            return number
    return None


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported at the top level and at run time) of each import in a file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from ((name, id(node) in top) for name in names)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    own = module_name(path)
    layer = layer_of(own)
    if own == "dmask_mobile":
        return
    assert layer is not None, f"{own} is in no layer"
    is_edge = layer >= layer_of("dmask_mobile.api")  # type: ignore[operator]
    for name, at_top in imported(path):
        package = name.partition(".")[0]
        if package not in ("dmask_mobile", "export", "latency_tables") or name == "dmask_mobile":
            continue
        assert layer_of(name) is not None, f"{own} imports {name}, which is in no layer"
        assert layer_of(name) <= layer, f"{own} (layer {layer}) imports {name} from above"  # type: ignore[operator]
        if package != "dmask_mobile" and own.startswith("dmask_mobile"):
            assert is_edge, f"{own} imports {name}: only the API and the command line may"
            assert not at_top, f"{own} imports {name} at its top level: a user's folder may hold export.py"


def height_of(module: str) -> int:
    folder = module.split(".")[1] if module.count(".") else ""
    return next((len(FOLDERS) - number for number, folders in enumerate(FOLDERS) if folder in folders), 0)


@pytest.mark.parametrize("path", sorted((ROOT / "latency_tables").rglob("*.py")), ids=module_name)
def test_imports_between_folders_of_latency_tables_point_down(path: Path) -> None:
    own = module_name(path)
    for name, _ in imported(path):
        if name.startswith("latency_tables.") and name.split(".")[1] != own.split(".")[1]:
            assert height_of(name) < height_of(own), f"{own} imports {name}, which is not below it"


def test_every_module_imports_without_optional_packages() -> None:
    blocked = ["litert_torch", "ai_edge_litert", "executorch", "ncnn", "pnnx", "coremltools", "hypothesis", "pytest"]
    code = "\n".join(
        ["import sys, importlib", f"sys.modules.update(dict.fromkeys({blocked}))"]
        + [f"importlib.import_module({module_name(path)!r})" for path in MODULES]
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
