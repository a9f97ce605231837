"""What a logger needs, before anything heavy loads."""

from __future__ import annotations

import pytest

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.tracking import packages


def mlflow(uri: str | None = None) -> dict[str, dict[str, object]]:
    return {"logger": {"mine": {"_target_": "pggrpo_cli.logger.mlflow.Mlflow", "tracking_uri": uri}}}


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The libraries that there are."""
    there: set[str] = set()
    monkeypatch.setattr(packages, "installed", there.__contains__)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return there


@pytest.mark.parametrize("missing", ["mlflow", "sqlalchemy", "alembic"])
def test_all_that_its_own_store_needs_is_asked_for(only: set[str], missing: str) -> None:
    only |= {"mlflow", "sqlalchemy", "alembic"} - {missing}
    with pytest.raises(ConfigError) as refused:
        packages.check_packages(mlflow())
    assert str(refused.value) == (
        f"`logger.mine`: needs {missing}, which is not installed: pip install 'pggrpo[mlflow]', or leave it out of "
        "logger=[…]."
    )
    only.add(missing)
    packages.check_packages(mlflow())


def test_a_server_needs_no_store(only: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    only.add("mlflow")
    packages.check_packages(mlflow("http://here"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    packages.check_packages(mlflow())
    only.clear()
    with pytest.raises(ConfigError, match="needs mlflow"):
        packages.check_packages(mlflow())
