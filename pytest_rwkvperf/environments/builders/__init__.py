"""How each engine is built from source; one module each, registered by one line in `registry.py`."""
