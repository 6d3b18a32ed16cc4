"""Which clips stand beside each other: those of one cell, made by several systems."""

from musicinfuser.metrics.matching import CellGroup, cell_groups

__all__ = ["CellGroup", "cell_groups"]
