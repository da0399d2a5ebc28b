"""Imports point one way, and optional packages load inside the functions that use them."""

from __future__ import annotations

import ast
import graphlib
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
        "dmask_mobile.markdown",
        "dmask_mobile.progress",
        "dmask_mobile.quantities",
        "dmask_mobile.ranks",
    ),
    ("dmask_mobile.records", "dmask_mobile.spaces", "dmask_mobile.recipes"),
    ("dmask_mobile.outputs", "dmask_mobile.pictures", "dmask_mobile.temporary"),
    ("dmask_mobile.costs", "dmask_mobile.nets", "dmask_mobile.run"),
    (
        "export",
        "dmask_mobile.cards",
        "dmask_mobile.data",
        "dmask_mobile.importing",
        "dmask_mobile.supernet",
        "dmask_mobile.training",
    ),
    ("latency_tables", "dmask_mobile.search", "dmask_mobile.sweep", "dmask_mobile.report"),
    ("dmask_mobile.api", "dmask_mobile.cost_names"),
    ("dmask_mobile.cli", "dmask_mobile.__main__"),
]
# Inside a package, from the ground up: a folder imports from its own line and from those above it.
INSIDE = {
    "latency_tables": [
        ("processes", "shortage", "sources", "user_cache"),
        ("table", "runtimes"),
        ("devices", "conversion", "prediction"),
        ("profiling",),
        ("diagnosis",),
    ],
    "export": [("deployable",), ("formats",), ("golden",), ("write", "samples", "verification")],
}
MODULES = sorted(p for package in ("dmask_mobile", "export", "latency_tables") for p in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = set(map(module_name, MODULES))


def layer_of(module: str, layers: list[tuple[str, ...]] = LAYERS) -> int | None:
    for number, modules in enumerate(layers):
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
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in NAMES else node.module for name in inside]
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


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_inside_a_package_point_down(path: Path) -> None:
    own = module_name(path)
    package, _, inside = own.partition(".")
    if not inside or package not in INSIDE:
        return
    layer = layer_of(inside, INSIDE[package])
    assert layer is not None, f"{own} is in no layer of {package}"
    for name, _ in imported(path):
        if name.startswith(f"{package}."):
            other = layer_of(name.removeprefix(f"{package}."), INSIDE[package])
            assert other is not None, f"{own} imports {name}, which is in no layer"
            assert other <= layer, f"{own} imports {name} from above"


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for types count: what two files both need lies below both."""
    graph = {module_name(path): {name for name, _ in imported(path) if name in NAMES} for path in MODULES}
    packages = {module_name(path) for path in MODULES if path.name == "__init__.py"}
    graph = {own: names - packages for own, names in graph.items() if own not in packages}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


def test_every_module_imports_without_optional_packages() -> None:
    blocked = [
        "litert_torch",
        "ai_edge_litert",
        "executorch",
        "ncnn",
        "pnnx",
        "coremltools",
        "ray",
        "hypothesis",
        "pytest",
    ]
    code = "\n".join(
        ["import sys, importlib", f"sys.modules.update(dict.fromkeys({blocked}))"]
        + [f"importlib.import_module({module_name(path)!r})" for path in MODULES]
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["", "export", "export/formats", "export/formats/onnx"])
def test_import_onnx_means_the_library_in_any_folder(folder: str, tmp_path: Path) -> None:
    """Our packages of the same names (``export/formats/onnx`` and others) never take a library's place."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from export.formats.onnx import reader, writer\n"
        "assert reader.onnx.ModelProto and writer.onnx.ModelProto\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT / folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_imports_are_absolute() -> None:
    """``from . import onnx`` and ``from .onnx import`` would hide which of the two is meant."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.ImportFrom) or node.level == 0, f"{path}:{node.lineno} imports relatively"
