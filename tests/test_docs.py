"""The documents are true: generated pages are current, named commands and files exist, nothing foreign is named."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from freehold import config
from freehold.cli.main import VERBS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def generate(*words: str, root: Path = ROOT) -> subprocess.CompletedProcess:
    env = os.environ | {"COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, str(root / "docs/generate.py"), *words], capture_output=True, text=True, env=env
    )


def test_the_reference_is_current():
    """'make docs' would change nothing."""
    done = generate("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_reference_is_found(tmp_path):
    """The same check on a copy with one word changed says no."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    page = tmp_path / "docs/reference/settings.md"
    page.write_text(page.read_text().replace("server.port", "server.prot"))
    done = generate("--check", root=tmp_path)
    assert done.returncode == 1 and "settings.md" in done.stdout


def test_every_setting_says_what_it_is():
    """None without a meaning in the reference."""
    text = (ROOT / "docs/reference/settings.md").read_text()
    for name in config.names():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` "))
        assert len(row.split("|")[4].strip()) > 5, row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_commands_lead_somewhere(page):
    """Every relative link is a file; every command is one that there is."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for verb in re.findall(r"`freehold (\w+)", text):
        assert verb in VERBS, verb


FOLDERS = ("home", "Users", "root", "work", "mnt")  # where one machine's paths begin
FOREIGN = re.compile(rf"(?<![\w.~-])/(?:{'|'.join(FOLDERS)})/\w")


def test_the_project_speaks_of_itself_alone():
    """No path of one machine in any file, and no address of a package registry in the locks."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    assert len(files) > 50
    for name in filter(None, files):
        text = (ROOT / name).read_text(errors="replace") if (ROOT / name).exists() else ""
        found = FOREIGN.search(text)
        assert found is None, f"{name}: {found and found[0]}"
        assert not name.endswith(".lock") or "://" not in text, name
    assert FOREIGN.search("see /" + "home/somebody/x")


def test_the_readmes_python_is_what_the_sdks_take(real):
    """Both examples run, with the real address and key put in."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        program = block.replace("http://127.0.0.1:8484", real.base).replace("fh_...", real.key)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_the_readmes_curl_is_answered(real):
    """With the real address and key put in."""
    block = re.search(r"\$ (curl .*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    command = block[1].replace("http://127.0.0.1:8484", real.base)
    env = os.environ | {"FREEHOLD_API_KEY": real.key}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=env)
    assert '"chat.completion"' in done.stdout, done.stdout + done.stderr
