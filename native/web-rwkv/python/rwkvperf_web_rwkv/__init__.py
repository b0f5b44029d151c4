"""web-rwkv, the RWKV inference engine on WebGPU, for Python: RWKV-7 models in `.st` files."""

from ._native import LARGEST_BATCH, LARGEST_CHUNK, WEB_RWKV_VERSION, Adapter, Batch, Model, WebRwkvError, adapters
from ._native import VERSION as __version__

__all__ = [
    "LARGEST_BATCH",
    "LARGEST_CHUNK",
    "WEB_RWKV_VERSION",
    "Adapter",
    "Batch",
    "Model",
    "WebRwkvError",
    "__version__",
    "adapters",
]
