"""House rules that a linter cannot say. Run like any other test."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["proto", "storage", "cluster", "core", "engines", "auth", "audit_devices", "server", "client"]
FOLDERS += ["chaos", "benchmarks"]


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def sources() -> list[Path]:
    return [path for path in tracked("*.py") if "_pb2" not in path.name]


def test_every_folder_of_the_house_is_a_subpackage() -> None:
    for folder in FOLDERS:
        link = ROOT / "src" / "holdfast" / folder
        assert link.is_symlink(), folder
        assert link.resolve() == ROOT / folder
    packaged = {p.parent for p in sources() if p.parts[len(ROOT.parts)] in FOLDERS}
    assert all((folder / "__init__.py").exists() for folder in packaged), "a folder with code lacks __init__.py"


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.stat().st_size and not path.read_text().lstrip().startswith(('"""', 'r"""', "#!"))
    ]
    assert not silent


def test_only_the_named_drivers_import_the_dangerous_libraries() -> None:
    owners = {"rocksdict": "storage/rocksdb.py", "pysyncobj": "cluster/raft/"}
    for library, owner in owners.items():
        pattern = re.compile(rf"^\s*(import|from)\s+{library}\b", re.MULTILINE)
        for path in sources():
            name = str(path.relative_to(ROOT))
            if not name.startswith(("tests/", owner)):
                assert not pattern.search(path.read_text()), f"{name} imports {library}; only {owner} may"


def test_no_test_is_skipped_silently() -> None:
    for path in tracked("tests/*.py"):
        for line in path.read_text().splitlines():
            if path.name != "test_tidy.py":
                assert not re.search(r"pytest\.(mark\.)?(skip|xfail)", line), f"{path}: {line}"


def test_generated_stubs_are_what_the_protos_generate(tmp_path: Path) -> None:
    protos = sorted((ROOT / "proto" / "v1").glob("*.proto"))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'src'}", f"--python_out={tmp_path}",
         f"--grpc_python_out={tmp_path}", *(f"{ROOT}/src/holdfast/proto/v1/{p.name}" for p in protos)],
        check=True,
    )  # fmt: skip
    for path in sorted((tmp_path / "holdfast" / "proto" / "v1").glob("*.py")):
        assert path.read_text() == (ROOT / "proto" / "v1" / path.name).read_text(), f"{path.name}: run 'make proto'"


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "LICENSE", "DESIGN.md", "Makefile"])
def test_the_house_has_its_papers(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0
