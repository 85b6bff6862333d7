from __future__ import annotations

from fpn.detectors import faster_rcnn
from fpn.studies.demo import DemoRecipe


def test_the_demos_own_settings_make_a_detector() -> None:
    detector = faster_rcnn(classes=["disc", "ring"], weights=None, **DemoRecipe().detector)
    # One box for both classes together.
    assert detector.roi_heads.box.deltas.out_features == 4
    assert detector.roi_heads.box.pooler.config.canonical_size == 84
