"""The oracle: an independent RWKV-7 whose logits engines are compared with, and the bounds on the distance."""
