"""What a machine can do at best, and how much a network asks of it."""

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from antpitta.model.network import SedNet

# Dense bf16 matrix peaks in FLOP/s, by the makers' data sheets; the first name that fits counts.
CARDS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
WARM, STEPS = 3, 10


def wait_for(device: torch.device) -> None:
    """Until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def data_sheet_peak(name: str) -> float | None:
    """The dense bf16 peak of a card in FLOP/s, where its name is known."""
    return next((peak for card, peak in CARDS.items() if card in name), None)


def measured_peak(device: torch.device, half: bool) -> float:
    """FLOP/s of a big matrix product: what this device does at best, of the arithmetic used."""
    size = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if half else torch.float32
    one, two = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(WARM + STEPS):
        wait_for(device)
        began = time.perf_counter()
        one @ two
        wait_for(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def flops_of(net: SedNet, frames: int, bands: int) -> tuple[float, float]:
    """FLOPs of one window: in training (forward and backward), and in scoring."""
    windows = 2  # batch norm needs two
    pixels = torch.zeros(windows, frames, bands, dtype=torch.uint8, device=net.mean.device)
    counts = []
    for training in (True, False):
        net.train(training)
        counter = FlopCounterMode(display=False)
        with counter, torch.set_grad_enabled(training):
            found = net(pixels).clipwise.sum()
            if training:
                found.backward()
        counts.append(counter.get_total_flops() / windows)
    net.zero_grad()
    return counts[0], counts[1]


def peak_memory(device: torch.device) -> float:
    """Bytes: of the GPU's memory by this process, or of the machine's."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource  # not on every system

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
