"""The text-to-video transformers that can be adapted, one file for each family."""

from collections.abc import Mapping
from typing import Any

from musicinfuser.errors import UserError
from musicinfuser.networks.backbones.base import Backbone, Given, SolverName, Stream
from musicinfuser.networks.backbones.mochi import Mochi
from musicinfuser.networks.backbones.wan import Wan, Wan5B
from musicinfuser.networks.backbones.wan_on_mochi import WanOnMochi

FAMILIES: dict[str, type[Backbone]] = {
    kind.family: kind for kind in (Mochi, Wan, Wan5B, WanOnMochi)
}
"""By the name that configs and files use."""


def family_named(name: str) -> type[Backbone]:
    """A family by its name in configs and files.

    Raises:
        UserError: There is none of that name.
    """
    if name not in FAMILIES:
        raise UserError(f"there is no backbone {name!r}; choose {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def families_of(config: Mapping[str, Any]) -> list[type[Backbone]]:
    """Families that a transformer may be of by its ``config.json``: one, or none."""
    return [
        kind
        for kind in FAMILIES.values()
        if config.get("_class_name") == kind.model_class.__name__ and kind.suits(config)
    ]


def backbone_of(model: Any) -> Backbone:
    """A transformer of diffusers with what is particular about its family.

    Raises:
        UserError: It is of no family.
    """
    for kind in FAMILIES.values():
        if isinstance(model, kind.model_class) and kind.suits(model.config):
            return kind(model)
    raise of_no_family(f"a {type(model).__name__}", model.config)


def of_no_family(what: str, config: Mapping[str, Any]) -> UserError:
    """That a transformer, ``what``, with this config cannot be adapted, and which can."""
    names = ("in_channels", "image_dim", "num_layers")
    sizes = ", ".join(f"{name} {config[name]}" for name in names if config.get(name) is not None)
    bases = [name for kind in FAMILIES.values() for name in kind.published]
    return UserError(
        f"{what}{f' ({sizes})' if sizes else ''} is none that can be adapted; "
        f"give a text-to-video base of the form of {', '.join(bases)}."
    )


__all__ = [
    "FAMILIES",
    "Backbone",
    "Given",
    "Mochi",
    "SolverName",
    "Stream",
    "Wan",
    "Wan5B",
    "WanOnMochi",
    "backbone_of",
    "families_of",
    "family_named",
    "of_no_family",
]
