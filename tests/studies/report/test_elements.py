from __future__ import annotations

from fpn.studies.report.elements import foreign, table


def test_a_heading_keeps_the_first_sign_of_somebody_elses_name() -> None:
    made = table("counts", ("<is", foreign("<b>"), "number"), [("a", 1, 2)])
    assert '<th scope="col" class="words">is</th>' in made
    assert '<th scope="col"><bdi>&lt;b&gt;</bdi></th>' in made
    assert "<td>1</td>" in made
