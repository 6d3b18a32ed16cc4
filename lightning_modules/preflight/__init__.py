"""What would go wrong in a run, and what it would need, before anything expensive starts."""

from lightning_modules.preflight.checklist import check
from lightning_modules.preflight.report import Report

__all__ = ["Report", "check"]
