"""Stands where cupti-python would: for workers that have this folder's parent on their path."""
