"""Search an image network whose mix of token mixers is best under a budget, and train it from scratch.

What a user of the package needs has a plain name here, loaded when it is asked for:

    from nas import load_network
    network = load_network("runs/<run>/weights.safetensors")
"""

import importlib
from pathlib import Path
from typing import Any

__version__ = "0.3.0"
_PACKAGE = Path(__file__).resolve().parent
# Where search_spaces/ and recipes/ are: in the package once it is installed from a wheel, beside it in a checkout.
HOME = _PACKAGE if (_PACKAGE / "search_spaces").is_dir() else _PACKAGE.parent

_HOMES = {
    "Architecture": "nas.networks.architecture",
    "Network": "nas.networks.network",
    "load_network": "nas.networks.trained",
    "SearchSpace": "nas.spaces.decisions",
    "Supernet": "nas.spaces.supernet",
}
__all__ = ["HOME", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
