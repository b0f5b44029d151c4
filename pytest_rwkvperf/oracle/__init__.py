"""The oracle: an RWKV-7 of our own to tell a right answer from a wrong one, and the bounds that decide."""
