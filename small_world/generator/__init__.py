"""A seeded world of synthetic dancers and music, written as real video files.

It stands in for AIST and for collected videos where those may not be shipped: every step from
cutting to scoring runs on it, beats and joints are known, and what is danced can be told from the
music. See :func:`make_small_world`.
"""

from small_world.generator.corpus import make_small_world, read_recipe
from small_world.generator.recipe import SmallWorldRecipe

__all__ = ["SmallWorldRecipe", "make_small_world", "read_recipe"]
