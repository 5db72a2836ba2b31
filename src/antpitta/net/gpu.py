"""Whether PyTorch finds a GPU, asked without loading PyTorch where there can be none.

PyTorch takes over a second to load, as long as OpenVINO needs to hear twenty minutes of sound.
"""

from ctypes import CDLL
from functools import cache
from pathlib import Path

DRIVERS = ("libcuda.so.1", "nvcuda.dll")  # Nvidia's, by the system; its libraries need it
AMD = Path("/dev/kfd")  # there with AMD's driver; PyTorch brings its libraries itself


@cache
def has_gpu() -> bool:
    """Whether models are heard on a GPU here."""
    if not (AMD.exists() or any(_loads(name) for name in DRIVERS)):
        return False
    import torch

    return torch.cuda.is_available()


def _loads(name: str) -> bool:
    try:
        CDLL(name)
    except OSError:
        return False
    return True
