"""`fpn export`: a model in another toolkit's form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.text import Text

from fpn.cli.terminal import say, say_warning


def run(
    model: Path,
    /,
    *,
    format: Literal["torchvision", "detectron2"],
    output: Path,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write a model's weights for torchvision or Detectron2, and say what they have to be told.

    A model whose settings the other side does not have is refused, with each of them named. Weights for torchvision are
    loaded into its own detector, which is compared with the model on three images. For example:

    fpn export runs/first/best.safetensors --format torchvision --output cells.pth > cells.py

    fpn export r50.safetensors --format detectron2 --output model_final.pth > config.yaml

    Args:
        model: A model file.
        format: Whose names the weights get.
        output: The file to write: .pth, as torch.save writes a dict of tensors, or .safetensors.
        overwrite: Replace a file that is there.
    """
    from fpn.detectors import load
    from fpn.interop import export_weights
    from fpn.interop.exporting import check_output
    from fpn.interop.proof import compare_live

    check_output(output, replace=overwrite)
    detector = load(model, device="cpu")
    exported = export_weights(detector, output, format=format, replace=overwrite)
    # Comments in both languages, so that all of it can go into a file.
    say(f"# {output}: {len(exported.tensors)} arrays for {exported.format}'s {exported.receiver}")
    if exported.model is not None:
        theirs = exported.model.build()
        theirs.load_state_dict(exported.tensors)
        say(f"# {compare_live(detector, theirs, exported.model.first_label)}")
    say(Text(exported.instructions, no_wrap=True, overflow="ignore"))
    for remark in exported.remarks:
        say_warning(remark)
