"""What the extra `serve` brings."""

from __future__ import annotations

from importlib.util import find_spec

from fpn.errors import MissingExtraError

_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def check_extra() -> None:
    """Nothing, where all of it is installed.

    Raises:
        MissingExtraError: something is missing.
    """
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise MissingExtraError(
            f"serving a model needs the extra `serve` ({', '.join(missing)} not installed): pip install 'fpn[serve]'"
        )
