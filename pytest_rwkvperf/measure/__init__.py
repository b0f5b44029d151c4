"""How a figure comes about: the protocol inside the worker, the sampling plan outside it."""
