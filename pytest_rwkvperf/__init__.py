"""Performance regression testing for RWKV-7 inference, as a pytest plugin."""

__version__ = "0.1.0"
