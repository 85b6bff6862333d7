"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """Counters of one server, in a registry of its own.

    Attributes:
        requests: answered ones by path and code.
        latency: seconds from a request's head to the end of its answer, by path.
        queue: images accepted and not answered.
        images: that were looked at, by model.
    """

    def __init__(self) -> None:
        here = CollectorRegistry()
        self.registry = here
        self.requests = Counter("fpn_requests", "Requests that were answered.", ["path", "code"], registry=here)
        self.latency = Histogram(
            "fpn_request_seconds",
            "From a request's head to the end of its answer.",
            ["path"],
            registry=here,
            buckets=_SECONDS,
        )
        self.queue = Gauge("fpn_queue_images", "Images accepted and not answered.", registry=here)
        self.images = Counter("fpn_images", "Images that were looked at.", ["model"], registry=here)
        self._batches = Histogram(
            "fpn_batch_images",
            "Images that went through the network together.",
            ["model"],
            registry=here,
            buckets=_IMAGES,
        )
        self._detecting = Histogram(
            "fpn_batch_seconds", "Time of a batch in the network.", ["model"], registry=here, buckets=_SECONDS
        )
        self._reloads = Counter("fpn_model_reloads", "Changes of a model's file.", ["model", "outcome"], registry=here)

    def batch(self, model: str, images: int, seconds: float) -> None:
        """Count one batch."""
        self._batches.labels(model).observe(images)
        self._detecting.labels(model).observe(seconds)

    def reloaded(self, model: str, outcome: str) -> None:
        """Count one change of a model's file; `outcome`: "reloaded" or "failed"."""
        self._reloads.labels(model, outcome).inc()

    def page(self) -> bytes:
        """All of it as text."""
        return generate_latest(self.registry)
