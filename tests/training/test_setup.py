from __future__ import annotations

import pytest

from fpn.detectors import Preprocessor
from fpn.training.setup import tell_padded

from .tiny import DIALECT, TinyDetector


@pytest.mark.parametrize(("side", "multiple", "told"), [(100, 1024, "128"), (512, 1024, "512"), (513, 1024, "")])
def test_much_more_padding_than_image_is_told_with_what_fits(side: int, multiple: int, told: str) -> None:
    detector = TinyDetector(["cell"])
    detector.preprocessor = Preprocessor(DIALECT.pixels.changed(long_side=side, size_multiple=multiple))
    said = tell_padded(detector)
    assert len(said) == bool(told)
    assert all(each.endswith(f"Say --set pixels.size_multiple={told}") for each in said)
    assert all(f"at most {side} pixels, are padded to {multiple} x {multiple}" in each for each in said)
