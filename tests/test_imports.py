"""Who may import whom: the table of the house, held by a walk over every module."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# The ground floor: small files any room may use, which themselves use no room.
GROUND = {
    f"musicinfuser.{name}"
    for name in (
        "aist_music",
        "cells",
        "clip_size",
        "errors",
        "external_worker",
        "file_identity",
        "fingerprint",
        "folder_lock",
        "keyed_random",
        "label_files",
        "number_names",
        "latent_space",
        "layer_cells",
        "option_parser",
        "parse_errors",
        "safetensors_files",
        "setting_differences",
        "tables",
        "throw_away",
        "version",
        "whole_files",
        "yaml_places",
    )
}
ERRORS = "musicinfuser.errors"
OURS = (
    "musicinfuser",
    "lightning_modules",
    "datamodules",
    "callbacks",
    "train",
    "evaluate",
)
# Room -> rooms it may import, and rooms it may name for types only.
TABLE: dict[str, tuple[set[str], set[str]]] = {
    **{name: ({ERRORS}, set()) for name in GROUND - {ERRORS}},
    ERRORS: (set(), set()),
    "musicinfuser.layer_cells": ({ERRORS, "musicinfuser.cells"}, set()),
    "musicinfuser.label_files": ({ERRORS, "musicinfuser.yaml_places"}, set()),
    "musicinfuser.parse_errors": ({"musicinfuser.yaml_places"}, set()),
    "musicinfuser.option_parser": (
        {ERRORS} | {f"musicinfuser.{n}" for n in ("label_files", "parse_errors", "yaml_places")},
        set(),
    ),
    "musicinfuser.safetensors_files": ({ERRORS, "musicinfuser.whole_files"}, set()),
    "musicinfuser.diffusion": (GROUND, set()),
    "musicinfuser.networks": (GROUND, set()),
    "musicinfuser.media": (GROUND, set()),
    "musicinfuser.judges": (GROUND | {"musicinfuser.media"}, set()),
    # They run where nothing else of this program can.
    "musicinfuser.workers": (set(), set()),
    # What a judge is shown is made of files, so its metric reads media.
    "musicinfuser.metrics": (GROUND | {"musicinfuser.networks.sources"}, set()),
    **{
        f"musicinfuser.metrics.{name}": (
            GROUND | {f"musicinfuser.{n}" for n in ("metrics", "judges", "media")},
            set(),
        )
        for name in ("judged_quality", "judge_controls", "other_tracks")
    },
    "musicinfuser.generation": (
        GROUND | {"musicinfuser.diffusion", "musicinfuser.media", "musicinfuser.networks"},
        set(),
    ),
    "musicinfuser.sharing": (GROUND | {"musicinfuser.networks"}, set()),
    "musicinfuser.convert": (GROUND | {"musicinfuser.sharing"}, set()),
    "musicinfuser.pipelines": (
        GROUND | {f"musicinfuser.{n}" for n in ("diffusion", "generation", "media", "networks")},
        set(),
    ),
    # A page on a pipeline.
    "musicinfuser.app": (
        GROUND | {f"musicinfuser.{n}" for n in ("generation", "media", "networks", "pipelines")},
        set(),
    ),
    "musicinfuser.study": (
        GROUND | {"musicinfuser.evaluation", "musicinfuser.media", "musicinfuser.metrics"},
        set(),
    ),
    "musicinfuser.evaluation": (GROUND | {"musicinfuser.media", "musicinfuser.metrics"}, set()),
    "musicinfuser.report": (
        GROUND | {f"musicinfuser.{n}" for n in ("evaluation", "media", "metrics")},
        set(),
    ),
    # Starts the doors as processes; of the rooms it needs only what makes tables.
    "musicinfuser.sweeps": (
        GROUND | {"musicinfuser.metrics", "musicinfuser.report", "musicinfuser.study.svg"},
        set(),
    ),
    "musicinfuser.comparison": (
        GROUND | {f"musicinfuser.{n}" for n in ("evaluation", "judges", "media", "metrics")},
        set(),
    ),
    "musicinfuser.adaptability": (
        GROUND
        | {"musicinfuser.metrics", "musicinfuser.networks.layer_selection"}
        | {"musicinfuser.report.plots", "musicinfuser.study.svg"},
        set(),
    ),
    "datamodules": (GROUND | {"musicinfuser.media"}, set()),
    "lightning_modules": (
        GROUND
        | {f"musicinfuser.{n}" for n in ("networks", "diffusion", "metrics", "generation")}
        | {"musicinfuser.sharing"}
        | {"musicinfuser.media.latents"},
        {"datamodules"},
    ),
    "callbacks": (
        GROUND
        | {f"musicinfuser.{n}" for n in ("adaptability", "diffusion", "media", "generation")}
        | {f"musicinfuser.networks.{n}" for n in ("encoders", "out_of_memory", "sources")}
        | {"lightning_modules.learning_rate", "musicinfuser.sharing"},
        {"lightning_modules", "datamodules"},
    ),
    # What `check` looks at: it builds every part of a config.
    "lightning_modules.preflight": (
        GROUND
        | {"lightning_modules", "datamodules", "callbacks"}
        | {"musicinfuser.media", "musicinfuser.networks"},
        set(),
    ),
    "train": (
        GROUND
        | {"lightning_modules", "datamodules", "callbacks"}
        | {"musicinfuser.media", "musicinfuser.networks.out_of_memory", "musicinfuser.sweeps"},
        set(),
    ),
    "musicinfuser.verbs": (
        GROUND
        | {f"musicinfuser.{n}" for n in ("comparison", "evaluation", "judges", "media", "metrics")}
        | {"musicinfuser.report"},
        set(),
    ),
    "evaluate": (
        GROUND | {f"musicinfuser.{n}" for n in ("evaluation", "metrics", "study", "verbs")},
        set(),
    ),
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
    for top in OURS:
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
        allowed, types = set(TABLE), set()
    else:
        assert here in TABLE, f"{module} is in no room of the table"
        allowed, types = TABLE[here]
    for name, types_only, _ in imports(ALL_MODULES[module]):
        if name.split(".")[0] not in OURS or is_within(name, {here}):
            continue
        assert is_within(name, allowed | (types if types_only else set())), (
            f"{module} imports {name}"
        )


@pytest.mark.parametrize("module", ALL_MODULES)
def test_packages_stay_in_their_rooms(module: str) -> None:
    for name, types_only, at_import in imports(ALL_MODULES[module]):
        package = name.split(".")[0]
        for prefix, forbidden in FORBIDDEN_PACKAGES.items():
            if not prefix or is_within(module, {prefix}):
                assert package not in forbidden, f"{module} imports {package}"
        if at_import and not types_only:
            assert package not in LAZY, f"{module} loads {package} when it is imported"


def test_nothing_imports_the_doors() -> None:
    for module, path in ALL_MODULES.items():
        for name, _, _ in imports(path):
            assert name.split(".")[0] not in {"train", "evaluate", "tests"}, f"{module}: {name}"
