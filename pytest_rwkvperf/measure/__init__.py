"""Measuring a case: the sampling plan, A/B pairs, probes, and the records that they make."""
