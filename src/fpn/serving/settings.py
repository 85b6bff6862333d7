"""What a server does with what comes in, and how much of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fpn.sections import Fraction, Section

_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class ServerSettings(Section):
    """Batches, limits and access; see docs/serving.md."""

    batch_size: int = Field(default=4, ge=1, le=1024, description="Most images that go through a network together.")
    wait_ms: float = Field(
        default=5.0, ge=0, le=60_000, description="Longest that an image waits for others to fill its batch, ms."
    )
    readers: int = Field(default=2, ge=1, le=256, description="Threads that decode and prepare images.")
    score: Fraction | Literal["calibrated"] | None = Field(
        default=None,
        description="Detections from this score on, where a request says nothing. calibrated: from each class's own "
        "threshold. None: calibrated where the model has that, else all that it reports.",
    )
    queue: int = Field(default=64, ge=1, le=100_000, description="Most images accepted and not answered; then 429.")
    max_bytes: int = Field(default=2**25, ge=1, le=2**31, description="Largest body of a request.")
    max_pixels: int = Field(default=2**26, ge=1, le=2**31, description="Largest image, height times width.")
    max_images: int = Field(default=16, ge=1, le=100_000, description="Most images of a request.")
    max_tiles: int = Field(default=256, ge=1, le=1_000_000, description="Most tiles that an image is cut into.")
    max_received: int = Field(
        default=2**29, ge=1, le=2**40, description="Bytes of all bodies that are held at once; then 429."
    )
    seconds: _Seconds = Field(
        default=60.0, description="Longest that a request takes once its body is there; then 504."
    )
    body_seconds: _Seconds = Field(default=30.0, description="Longest that a body may take to come; then 408.")
    token: str | None = Field(
        default=None, min_length=1, description="What `Authorization: Bearer` has to say.", repr=False
    )

    @property
    def ahead(self) -> int:
        """Images that are decoded and prepared before the network is free for them."""
        return 4 * self.batch_size
