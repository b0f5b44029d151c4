"""Baselines and measurement records on disk: schemas, reading, merging, writing."""
