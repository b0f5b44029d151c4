"""Verdicts: a record compared with a baseline, two stored files compared, and what of a run may be stored."""
