"""Name and version of this program, as they go into the files it makes."""

PROGRAM = "MusicInfuser on Lightning"
VERSION = "0.2.0"
"""That of pyproject.toml."""
