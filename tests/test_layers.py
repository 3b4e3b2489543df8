"""The import order holds, and the test that says so can say no."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    import os

    env = os.environ | {"PYTHONPATH": str(folder / "src")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def copy(folder: Path) -> Path:
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_a_module_imports_only_from_lower_layers():
    """Every contract in pyproject.toml is kept."""
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


def test_an_import_against_the_layers_is_found(tmp_path):
    """The same check on a copy in which policy imports the wire says no."""
    folder = copy(tmp_path)
    with (folder / "src/freehold/policy.py").open("a") as stream:
        stream.write("\nfrom freehold.api import http\n")
    done = lint_imports(folder)
    assert done.returncode == 1
    assert "freehold.policy -> freehold.api" in done.stdout


def test_the_gateway_never_imports_the_engine_library():
    """Everything that the server is made of can be imported without xllamacpp coming along."""
    program = "import sys, freehold.app, freehold.cli.up; sys.exit('xllamacpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
