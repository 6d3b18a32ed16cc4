"""Judging of dance videos: scores, judges, tables, pages and studies with people."""
