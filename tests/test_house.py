"""The mapping rule: conf/<group>/<name>.yaml ↔ pggrpo_cli/<group>/<name>.py ↔ tests/<group>/test_<name>.py."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GROUPS = (
    "model",
    "data",
    "order",
    "sampler",
    "reward",
    "advantage",
    "pairing",
    "loss",
    "optimizer",
    "scheduler",
    "logger",
)
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
SOURCES = sorted((ROOT / "pggrpo_cli").rglob("*.py"))


def targets(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [target for value in node.values() for target in targets(value)]
    return []


@pytest.mark.parametrize("group", GROUPS)
def test_every_configuration_names_a_class_of_its_group(group: str) -> None:
    files = sorted((ROOT / "conf" / group).glob("*.yaml"))
    assert files
    for file in files:
        found = targets(yaml.safe_load(re.sub(r"\$\{[^}]*\}", "1", file.read_text())))
        assert found, file
        for target in found:  # one, and those of the nodes within
            assert not target.startswith("pggrpo_cli.") or target.startswith(f"pggrpo_cli.{group}."), file


@pytest.mark.parametrize("group", GROUPS)
def test_every_class_of_a_group_has_its_configuration_and_its_tests(group: str) -> None:
    for source in sorted((ROOT / "pggrpo_cli" / group).glob("*.py")):
        if source.stem == "__init__":
            continue
        assert (ROOT / "conf" / group / f"{source.stem}.yaml").exists(), source
        assert (ROOT / "tests" / group / f"test_{source.stem}.py").exists(), source


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.fault("T28")
def test_a_file_fits_in_a_head_and_nothing_is_pickled(source: Path) -> None:
    text = source.read_text()
    assert text.count("\n") <= 350
    assert source.stem not in {"utils", "common", "base", "manager", "helpers"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 60, f"{source}: {node.name}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not PICKLES & {name.partition(".")[0] for name in names}
    assert not re.search(r"torch\.(load|save)\(|allow_pickle", text)
    assert not re.search(r"trust_remote_code[\"']?\s*[:=]\s*True", text)


def test_no_default_stands_in_a_component() -> None:
    for group in GROUPS:
        for source in sorted((ROOT / "pggrpo_cli" / group).glob("*.py")):
            for node in ast.parse(source.read_text()).body:
                if isinstance(node, ast.ClassDef) and "kw_only=True" in ast.unparse(
                    node.decorator_list[0] if node.decorator_list else ast.Constant(0)
                ):
                    assert not [item for item in node.body if isinstance(item, ast.AnnAssign) and item.value], source
