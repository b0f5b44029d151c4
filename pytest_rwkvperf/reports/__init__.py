"""How results are shown: progress while measuring, the summary at the end."""
