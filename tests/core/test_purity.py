import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {"torch", "numpy", "einops", "safetensors"}
ALSO = {"files": {"PIL", "c2pa"}}  # a room of eta_core -> what it may import beside these


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {
        n.split(".")[0]
        for n in names
        | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    }


def test_the_core_imports_no_host():
    import sys

    for path in (ROOT / "eta_core").rglob("*.py"):
        allowed = ALLOWED | ALSO.get(path.parent.name, set())
        assert imported(path) <= allowed | sys.stdlib_module_names, path.name


def test_only_the_host_folder_touches_the_hosts_internals():
    """comfy_api.latest is the host's public face for nodes; everything else of it belongs to nodes/host/."""
    internals = {"comfy", "comfy_extras", "folder_paths", "latent_preview", "execution", "server", "nodes"}
    for path in (ROOT / "nodes").glob("*.py"):
        assert not imported(path) & internals, path.name
