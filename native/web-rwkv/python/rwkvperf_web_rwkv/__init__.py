"""web-rwkv, the RWKV inference engine on WebGPU, for Python: RWKV-7 models in `.st` files."""

from ._native import VERSION as __version__
from ._native import WEB_RWKV_VERSION, Adapter, Model, WebRwkvError, adapters

__all__ = ["WEB_RWKV_VERSION", "Adapter", "Model", "WebRwkvError", "__version__", "adapters"]
