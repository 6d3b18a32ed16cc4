"""Users get one sentence; a fault of this program keeps its traceback."""

import ast
import subprocess
import sys

import pytest

from dance_eval.metrics.scoring import reason
from musicinfuser.clip_size import check_clip_size
from musicinfuser.errors import UserError, user_error
from tests.conftest import ROOT

PRODUCT = ("musicinfuser", "lightning_modules", "datamodules", "callbacks")


def test_a_refusal_is_found_inside_the_errors_of_a_library() -> None:
    with pytest.raises(TypeError) as error:
        try:
            check_clip_size(8, 480, 848)
        except UserError as inner:
            raise TypeError("pages about types") from inner
    refusal = user_error(error.value)
    assert refusal is not None and str(refusal).startswith("num_frames is 8")


@pytest.mark.parametrize("fault", [lambda: int("old"), lambda: list(zip([1], [], strict=True))])
def test_a_fault_is_not_a_refusal(fault) -> None:
    with pytest.raises(ValueError) as error:
        fault()
    assert user_error(error.value) is None and user_error(None) is None


def test_a_metric_with_a_fault_keeps_its_traceback(capsys) -> None:
    assert reason(UserError("a.mp4 is cut off.")) == "a.mp4 is cut off."
    assert not capsys.readouterr().err
    try:
        int("old")
    except ValueError as error:
        assert reason(error).startswith("ValueError: invalid literal")
    assert 'int("old")' in capsys.readouterr().err


# The line that raises stands in a file of this program, as in a strict zip of two lists of ours.
FAULTY_DOOR = """
import sys
from pathlib import Path
import {module} as door
code = compile("def fail(*args, **kwargs):\\n    return int('old')\\n", {file!r}, "exec")
exec(code, space := {{}})
{patch} = space["fail"]
sys.argv = {arguments!r}
{start}
"""


@pytest.mark.parametrize(
    ("module", "patch", "start", "arguments"),
    [
        ("train", "door.main", "door.from_shell()", ["train.py", "fit"]),
        ("train", "door.sweep_command", "door.from_shell()", ["train.py", "sweep", "x"]),
    ],
)
def test_a_fault_of_a_door_keeps_its_traceback(module, patch, start, arguments) -> None:
    code = FAULTY_DOOR.format(
        module=module,
        file=str(ROOT / "musicinfuser/clip_size.py"),
        patch=patch,
        start=start,
        arguments=arguments,
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "invalid literal for int()" in done.stderr


def test_errors_of_this_program_have_one_base_class() -> None:
    """Every class of errors that ends a command derives from `UserError`."""
    for path in (path for room in PRODUCT for path in (ROOT / room).rglob("*.py")):
        if path.is_relative_to(ROOT / "dance_eval/workers") or path.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert not bases & {"ValueError", "RuntimeError", "OSError"}, f"{path}: {node.name}"


def test_an_error_that_is_raised_again_out_of_its_own_pages_is_found():
    refusal, pages = UserError("num_frames is 8."), TypeError("pages about types")
    pages.__cause__, refusal.__context__ = refusal, pages
    assert user_error(pages) is user_error(refusal) is refusal
    fault, other = ValueError("a"), ValueError("b")
    fault.__context__, other.__context__ = other, fault
    assert user_error(fault) is None
