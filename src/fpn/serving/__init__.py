"""A model behind HTTP: micro-batches, two protocols, limits on everything that comes in, and a graceful stop."""

from __future__ import annotations

from fpn.serving.extra import check_extra

check_extra()

from fpn.serving.app import build_app  # noqa: E402
from fpn.serving.models import open_models  # noqa: E402
from fpn.serving.settings import ServerSettings  # noqa: E402

__all__ = ["ServerSettings", "build_app", "open_models"]
