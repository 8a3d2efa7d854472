"""
The address of the local Hub, fixed before anyone can ask for it.

`huggingface_hub`, `datasets`, `diffusers` and `evaluate` read HF_ENDPOINT once, when they are first imported, whereas
the server starts much later, with the first test that wants it. So tests/conftest.py calls `use_local_hub()` above all
imports that might bring one of them in.
"""

import os
import socket
import sys


_reserved: socket.socket | None = None


def reserved_port() -> int:
    """A port that belongs to this process: bound, never listened on, so the server may be stopped and come back."""
    global _reserved
    if _reserved is None:
        _reserved = socket.socket()
        _reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _reserved.bind(("127.0.0.1", 0))
    port: int = _reserved.getsockname()[1]
    return port


def use_local_hub() -> None:
    """
    Point every Hub client of this process and of its children at the local Hub.

    Each pytest process (with pytest-xdist, each worker) gets its own port, so what it inherited is overridden. While
    no server runs a client gets "connection refused" at once: no test reaches the real Hub by accident.

    Raises: `RuntimeError` if huggingface_hub was imported before, with another address.
    """
    endpoint = f"http://127.0.0.1:{reserved_port()}"
    if os.environ.get("HF_ENDPOINT") == endpoint:
        return
    if "huggingface_hub.constants" in sys.modules:
        raise RuntimeError(
            "huggingface_hub was imported before use_local_hub() and keeps its old address; call use_local_hub() on "
            "top of tests/conftest.py, above every import that brings huggingface_hub in."
        )
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.pop(name, None)
    os.environ |= {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",  # with Xet, uploads do not ask the server how: they always go to Xet
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
