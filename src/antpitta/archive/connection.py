"""A Ray cluster's start and end: found at an address, or started on this machine."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_connection, gethostname
from typing import Any

from antpitta.core.errors import UserMistake

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}


@contextmanager
def connected(workers: int | None, address: str | None) -> Iterator[Any]:
    """Ray, connected; what was started here is stopped here."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserMistake(
            "--engine ray: Ray is not installed; pip install 'antpitta[ray]'"
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    _knock(address)
    started: dict[str, Any] = {"address": address}
    if not (address or os.environ.get("RAY_ADDRESS")):
        started = {"address": "local", "include_dashboard": False, "num_cpus": workers}
    try:
        ray.init(**started, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as trouble:
        raise _unreachable(address, trouble) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Whether anybody listens at HOST:PORT: Ray itself takes minutes to find out."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a name that Ray knows
    trouble: OSError | None = None
    for name in (host, gethostname()):  # a node's loopback stands for its other addresses
        try:
            create_connection((name, int(port)), timeout=10).close()
            return
        except OSError as refused:
            trouble = trouble or refused
        if host not in ("127.0.0.1", "localhost"):
            break
    raise _unreachable(address, trouble)


def _unreachable(address: str | None, trouble: Exception | None) -> UserMistake:
    said = " ".join(str(trouble).split())[:200]
    return UserMistake(
        f"--address {address}: no Ray cluster can be reached ({said}); start one with "
        "`ray start --head`, or leave --address out"
    )
