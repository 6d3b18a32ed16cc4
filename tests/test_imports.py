"""Who may import whom, held by a walk over every module."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Base modules: small files that every package may use, and that use no package.
BASE = {f"musicinfuser.{path.stem}" for path in (ROOT / "musicinfuser").glob("*.py")} - {
    "musicinfuser.__init__",
    "musicinfuser.convert",
}
PACKAGES = (
    "musicinfuser",
    "dance_eval",
    "sweeps",
    "preflight",
    "small_world",
    "lightning_modules",
    "datamodules",
    "callbacks",
    "integrations",
    "train",
    "evaluate",
)


def inside(package: str, *names: str) -> set[str]:
    return {f"{package}.{name}" for name in names}


METHOD = inside("musicinfuser", "diffusion", "networks", "memory", "media")
# Package -> packages it may import, type checking included.
TABLE: dict[str, set[str]] = {
    **dict.fromkeys(BASE, BASE),
    # The method, from the ground up.
    "musicinfuser.media": BASE,
    "musicinfuser.diffusion": BASE,
    "musicinfuser.memory": BASE,
    # Sound is resampled in one place, for features of several rates too.
    # A backbone says at which noise levels it is sampled.
    "musicinfuser.networks": BASE | inside("musicinfuser", "diffusion", "memory", "media"),
    "musicinfuser.generation": BASE | METHOD,
    "musicinfuser.adapters": BASE | inside("musicinfuser", "memory", "networks"),
    "musicinfuser.convert": BASE | {"musicinfuser.adapters"},
    "musicinfuser.pipelines": BASE | METHOD | inside("musicinfuser", "adapters", "generation"),
    "musicinfuser.app": BASE
    | METHOD
    | inside("musicinfuser", "adapters", "generation", "pipelines"),
    # In the place of another program, on what is installed.
    "integrations": BASE | METHOD | inside("musicinfuser", "adapters", "generation", "pipelines"),
    # Judging could be installed alone: of the method it takes media and base modules only.
    "dance_eval": BASE | {"musicinfuser.media"},
    # They run where nothing else of this program can.
    "dance_eval.workers": set(),
    # The jobs of Lightning.
    "datamodules": BASE | {"musicinfuser.media"},
    "lightning_modules": BASE
    | METHOD
    | inside("musicinfuser", "adapters", "generation")
    | {"dance_eval", "datamodules"},
    "callbacks": BASE
    | METHOD
    | inside("musicinfuser", "adapters", "generation")
    | {"dance_eval", "datamodules", "lightning_modules"},
    # What `check` looks at: it builds every part of a config.
    "preflight": BASE
    | METHOD
    | {"musicinfuser.adapters", "datamodules", "lightning_modules", "callbacks"},
    # Starts both doors as processes and draws what they wrote.
    "sweeps": BASE | {"dance_eval"},
    # The test bed may use everything; nothing of the product may use it.
    "small_world": BASE
    | METHOD
    | {"musicinfuser", "dance_eval", "datamodules", "lightning_modules", "callbacks"},
    # Lightning's commands: they build every part of a config, too, and check it.
    "lightning_modules.cli": BASE
    | {"musicinfuser.memory", "lightning_modules", "callbacks", "preflight"},
    "train": BASE | {"lightning_modules.cli", "sweeps"},
    "evaluate": {"dance_eval", "musicinfuser.loading"},
}
# Heavy or optional packages a room must not load when it is imported.
LAZY = {"av", "tensorboard", "librosa", "cv2", "scenedetect", "peft", "gradio"}
FORBIDDEN_PACKAGES = {
    "musicinfuser": {"lightning", "pytorch_lightning"},
    "musicinfuser.diffusion": {"diffusers", "transformers", "peft"},
    "musicinfuser.media": {"diffusers", "transformers", "peft"},
    "": {"pytorch_lightning"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for top in PACKAGES:
        path = ROOT / f"{top}.py"
        files = [path] if path.is_file() else sorted((ROOT / top).rglob("*.py"))
        assert files, top
        for file in files:
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(p for p in parts if p != "__init__"), file


@functools.cache
def imports(path: Path) -> tuple[tuple[str, bool, bool], ...]:
    """(module, is it for types only, does it run when the file is imported)."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, bool, bool]]:
    tree = ast.parse(path.read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        above, types_only, at_import = node, False, True
        while above in parents:
            above = parents[above]
            if isinstance(above, ast.If) and ast.unparse(above.test) == "TYPE_CHECKING":
                types_only = True
            if isinstance(above, ast.FunctionDef):
                at_import = False
        yield from ((name, types_only, at_import) for name in names)


def room(module: str) -> str:
    candidates = [name for name in TABLE if module == name or module.startswith(f"{name}.")]
    return max(candidates, key=len) if candidates else module


def is_within(module: str, rooms: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in rooms)


ALL_MODULES = dict(modules())


@pytest.mark.parametrize("module", ALL_MODULES)
def test_arrows_go_where_the_table_says(module: str) -> None:
    here = room(module)
    if module == "musicinfuser":
        allowed = {"musicinfuser"}
    else:
        assert here in TABLE, f"{module} is in no package of the table"
        allowed = TABLE[here]
    for name, _, _ in imports(ALL_MODULES[module]):
        if name.split(".")[0] not in PACKAGES or is_within(name, {here}):
            continue
        assert is_within(name, allowed), f"{module} imports {name}"


def test_the_table_has_no_circle() -> None:
    def above(name: str, seen: tuple[str, ...]) -> None:
        assert name not in seen, f"a circle: {' -> '.join((*seen, name))}"
        for other in TABLE.get(name, set()) - BASE - {name, "musicinfuser"}:
            above(other, (*seen, name))

    for name in TABLE:
        above(name, ())


def test_no_product_module_uses_the_test_bed() -> None:
    for module, path in ALL_MODULES.items():
        if not is_within(module, {"small_world"}):
            assert not any(is_within(name, {"small_world"}) for name, _, _ in imports(path)), module


@pytest.mark.parametrize("module", ALL_MODULES)
def test_packages_stay_in_their_rooms(module: str) -> None:
    for name, types_only, at_import in imports(ALL_MODULES[module]):
        package = name.split(".")[0]
        for prefix, forbidden in FORBIDDEN_PACKAGES.items():
            if not prefix or is_within(module, {prefix}):
                assert package not in forbidden, f"{module} imports {package}"
        if at_import and not types_only and not is_within(module, {"small_world"}):
            assert package not in LAZY, f"{module} loads {package} when it is imported"


def test_nothing_imports_the_doors() -> None:
    for module, path in ALL_MODULES.items():
        for name, _, _ in imports(path):
            assert name.split(".")[0] not in {"train", "evaluate", "tests"}, f"{module}: {name}"


def test_a_config_is_read_without_the_packages_of_networks() -> None:
    """They take a second and more; a family names its VAE, T5 and transformer, not loading them."""
    arguments = ["fit", "--config", "configs/base.yaml", "--print_config"]
    code = (
        "import contextlib, sys, train\n"
        f"with contextlib.suppress(SystemExit): train.main({arguments})\n"
        "print('loaded:', {'diffusers', 'peft', 'accelerate'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("# lightning.pytorch") and "rank: 64" in done.stdout, done.stderr
    assert done.stdout.endswith("loaded: set()\n"), done.stdout[-200:]


def test_the_command_line_is_read_before_torch_is_loaded() -> None:
    code = "import sys, train; train.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_generator_needs_no_lightning() -> None:
    """It and each of its processes would be seconds longer in starting."""
    code = (
        "import sys, small_world.generator.test_set, small_world.generator.__main__\n"
        "sys.exit(bool({'lightning', 'torchmetrics', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
