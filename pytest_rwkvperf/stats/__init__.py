"""Pure arithmetic: from raw times to estimates, intervals and verdicts."""
