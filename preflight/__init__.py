"""What would go wrong in a run, and what it would need, before anything expensive starts."""

from preflight.checklist import check
from preflight.report import Report

__all__ = ["Report", "check"]
