from __future__ import annotations

from typing import Any

from fpn.studies.report.background import model_chapter

MODEL: dict[str, Any] = {
    "recipe": {"kind": "fcos", "frozen_norm": True, "dialect": {"dense": {"limit": 100, "radius": None}}},
    "parameters": 1234,
    "classes": ["nut"],
    "trained_on": {},
    "trained": {},
    "config": {"scale": [0.8, 1.25]},
    "plan": {"recipe": "none", "because": "all is given", "settings": {}},
}


def test_values_are_said_as_people_write_them_and_a_recipe_that_chose_nothing_has_no_table() -> None:
    html = model_chapter({"model": MODEL}).body
    cells = html.replace('<td class="words">', "<td>")
    for value in ("yes", "0.8, 1.25", "-", "1,234"):
        assert f"<td>{value}</td>" in cells
    assert "<p>Recipe none: all is given.</p>" in html
    assert "<caption>Recipe" not in html


def test_settings_of_a_section_within_a_section_are_rows_of_their_own() -> None:
    recipe = {**MODEL["recipe"], "dialect": {"backbone": {"vit": {"width": 768, "global_blocks": None}}}}
    html = model_chapter({"model": {**MODEL, "recipe": recipe}}).body
    assert "backbone.vit.width" in html
    assert "backbone.vit.global_blocks" in html
    assert "{" not in html
    assert "None" not in html
