"""Classes of large packages as attributes of ours, without loading these to read a config."""

from importlib import import_module
from typing import Any


class ClassOf:
    """Attribute of a class that is a class of another package, imported when it is first read."""

    def __init__(self, package: str, name: str) -> None:
        """Note where it is.

        Args:
            package: Such as ``diffusers``.
            name: Of the class in it.
        """
        self.package, self.name = package, name

    def __get__(self, instance: Any, owner: type[Any]) -> type[Any]:
        """The class.

        Raises:
            ImportError: The package is not installed.
            AttributeError: It has no such class.
        """
        return getattr(import_module(self.package), self.name)
