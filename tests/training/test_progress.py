from __future__ import annotations

import io

from rich.console import Console

from fpn.training.progress import Bar, Lines


def test_lines_come_now_and_then_and_notes_always():
    page = io.StringIO()
    lines = Lines(Console(file=page, width=200), every=3600.0)
    lines.begin(done=0, total=100, epochs=2)
    for step in range(1, 4):
        lines.step(step, epoch=1)
        lines.values({"loss": 1.5, "box": 0.25}, images_per_second=12.34)
    lines.note("epoch 1/2  AP 0.500")
    told = page.getvalue().splitlines()
    assert len(told) == 2
    assert told[0].startswith("epoch 1/2  step 1/100  left 0:00:0")
    assert told[0].endswith("12.3 images/s  loss 1.500  box 0.250")
    assert told[1] == "epoch 1/2  AP 0.500"


def test_the_bar_shows_epoch_step_time_left_speed_and_terms():
    page = io.StringIO()
    bar = Bar(Console(file=page, width=160, force_terminal=True))
    bar.begin(done=0, total=100, epochs=2)
    bar.step(60, epoch=2)
    bar.values({"loss": 1.5, "box": 0.25}, images_per_second=12.34)
    bar.end()
    for shown in ("epoch 2/2", "60/100", "left 0:00:00", "12.3 images/s  loss 1.500  box 0.250"):
        assert shown in page.getvalue()
