import tomllib

from musicinfuser.version import VERSION
from tests.conftest import ROOT


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
