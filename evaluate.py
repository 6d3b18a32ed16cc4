"""Judging: ``python evaluate.py report|score|table|sheet|side_by_side|compare|study``.

`dance_eval` does the work and describes every command; ``python -m dance_eval`` is the same.
"""

from musicinfuser.loading import loading

with loading():
    from dance_eval.__main__ import from_shell, main

__all__ = ["main"]

if __name__ == "__main__":
    from_shell()
