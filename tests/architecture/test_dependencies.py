"""What the code imports is what pyproject.toml asks for, and constraints.txt holds all of it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONSTRAINTS = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def import_name(requirement: str) -> str:
    """`tomli-w>=1.1` → tomli_w. The libraries used here are imported by the name they are installed by."""
    match = re.match(r"[\w.-]+", requirement)
    assert match, requirement
    return match[0].lower().replace("-", "_")


def imported_libraries() -> set[str]:
    """Every library that a file below src/ imports, wherever in the file."""
    names: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"pellucid", "__future__"}


def test_every_imported_library_is_asked_for_and_every_core_one_is_imported():
    core = {import_name(requirement) for requirement in PROJECT["dependencies"]}
    for_users = [group for name, group in EXTRAS.items() if name not in ("test", "check")]
    optional = {import_name(requirement) for group in for_users for requirement in group}
    assert core <= imported_libraries() <= core | optional


def test_every_requirement_is_held_to_one_version_without_an_address():
    assert [line for line in CONSTRAINTS if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    wanted = {import_name(r) for group in (PROJECT["dependencies"], *EXTRAS.values()) for r in group}
    assert wanted - {import_name(line) for line in CONSTRAINTS} == {"pellucid"}  # which extras of extras name
