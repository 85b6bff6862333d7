"""`fpn import`: another toolkit's checkpoint as a model file."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fpn.cli import paths
from fpn.cli.model_settings import read_assignments
from fpn.cli.terminal import say, say_warning
from fpn.errors import ConfigError, DataNotFoundError
from fpn.files import refuse_unwritable, taken
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.interop import ImportedWeights

_SUFFIX = ".safetensors"


def run(
    checkpoint: Annotated[str, paths.beginning()],
    /,
    *,
    output: Path,
    classes: str | None = None,
    config: Annotated[Path | None, paths.file("--config")] = None,
    set: tuple[str, ...] = (),
    allow_missing: Annotated[bool, Parameter(negative=())] = False,
    verify: Annotated[Path | None, paths.file("--verify")] = None,
) -> None:
    """Turn another toolkit's checkpoint into a model that predict, evaluate and train --init take.

    torchvision, Detectron2, MMDetection, fpn.pytorch and matterport are recognised by the names and shapes of their
    weights. No code of the file is run: it is read as data, and whatever else it refers to is refused by name. For
    example:

    fpn import model_final_b275ba.pkl --output r50.safetensors --classes coco

    fpn import epoch_12.pth --output cells.safetensors (MMDetection's own config and classes are in the file)

    fpn import mask_rcnn_coco.h5 --output mask.safetensors --classes coco (matterport's; the extra keras reads it)

    fpn import torchvision/fasterrcnn_resnet50_fpn_v2 --output tv.safetensors

    Names after torchvision/ are fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn and retinanet_resnet50_fpn, all also
    with _v2; keypointrcnn_resnet50_fpn, fcos_resnet50_fpn, fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_mobilenet_v3_large_320_fpn.

    Weights that tell ImageNet's classes become a backbone, which train --init takes, too: torchvision's ResNets,
    ResNeXts and MobileNets (torchvision/resnet50, or their .pth), Detectron2's R-50.pkl, R-101.pkl and
    X-101-32x8d.pkl, and timm/NAME, such as timm/resnet50.a1_in1k or timm/convnext_tiny.fb_in22k_ft_in1k.

    Args:
        checkpoint: A .pth, .pt, .pkl, .h5 or .safetensors file; or torchvision/NAME or timm/NAME, which is taken from
            their caches or downloaded.
        output: The model file to write, .safetensors; a file that is there is never replaced.
        classes: Names in the order of the toolkit's labels, without background: coco, a file with a name a line or
            COCO's annotations, or a,b,c. None: those that the file tells, else numbers.
        config: Detectron2's yaml, or MMDetection's flattened config: thresholds, sizes, anchors.
        set: Any setting that no weight tells, such as roi.sampler=pool. It wins over the config.
        allow_missing: Go on though some names have no place here, or weights are missing.
        verify: An .npz with images and what the toolkit found in them; see docs/importing.md. Weights of torchvision
            are compared with torchvision itself, without it.
    """
    _check_output(output)
    if verify is not None and not verify.is_file():
        raise DataNotFoundError(f"--verify {verify}: no such file of results")

    # What reads files comes before what builds networks, which takes seconds to import.
    from fpn.interop.weight_names import check_source, is_timm, is_torchvision

    check_source(checkpoint)
    assigned = read_assignments(set)
    if config is not None:
        from fpn.interop.toolkit_configs import read_toolkit_config

        read_toolkit_config(config)
    if is_timm(checkpoint):
        _keep_timm(checkpoint, output)
        return
    from fpn.interop.checkpoint_files import read_checkpoint_file

    content = None if is_torchvision(checkpoint) else read_checkpoint_file(checkpoint)

    from fpn.interop.conversion import IMAGENET
    from fpn.interop.importing import import_content
    from fpn.interop.torchvision_registry import find_torchvision

    found = find_torchvision(checkpoint)
    if found.own:
        say(f"{checkpoint}: by its hash torchvision's own {found.own}, whose classes and settings it takes")
    imported = import_content(
        read_checkpoint_file(found.path) if content is None else content,
        found.path,
        found.classes if classes is None else classes,
        config,
        allow_missing=allow_missing,
        **{**found.settings, **assigned},
    )
    if imported.toolkit == IMAGENET:
        _keep_backbone(imported, checkpoint, output)
    else:
        _keep_model(imported, checkpoint, output, weights=found.path, verify=verify)


def _check_output(output: Path) -> None:
    """Stop before any work where no model can be written."""
    if output.suffix != _SUFFIX:
        raise ConfigError(f"--output {output}: a model is one {_SUFFIX} file")
    if output.exists():
        raise taken(output, "file")
    refuse_unwritable(output)


def _keep_model(
    imported: ImportedWeights, checkpoint: str, output: Path, *, weights: Path, verify: Path | None
) -> None:
    from fpn.detectors import save
    from fpn.detectors.detector import IMPORTED
    from fpn.interop.importing import describe_import, require_detector
    from fpn.interop.proof import MOSTLY, compare_stored, compare_torchvision

    detector = require_detector(imported, checkpoint)
    _tell(imported, checkpoint)
    proofs = [] if verify is None else [compare_stored(detector, verify)]
    if imported.toolkit == "torchvision":
        proofs += compare_torchvision(detector, weights)
    for proof in proofs:
        say(f"  {proof}")
        if proof.same < MOSTLY * proof.theirs:
            say_warning(
                f"only {proof.same} of {proof.theirs} detections are the same: a setting may be another than there "
                "(--set, --config), or many scores are equal, as they are before training"
            )
    if not proofs:
        say("  not compared with the toolkit's own results: --verify does that")
    detector.training_record = {IMPORTED: describe_import(imported, checkpoint, [proof.to_json() for proof in proofs])}
    save(detector, output)
    say(f"model: {output}")
    say(f"Next:\n  fpn explain {output}\n  fpn predict {output} IMAGES --output predictions")


def _keep_backbone(imported: ImportedWeights, checkpoint: str, output: Path) -> None:
    """Of weights without a detector's heads."""
    from fpn.interop.backbone_files import save_backbone
    from fpn.interop.beginnings import as_backbone
    from fpn.interop.importing import describe_import, set_aside

    backbone = as_backbone(imported, checkpoint)
    say(f"{checkpoint}: {imported.form}, ImageNet weights of a {backbone.name}, a backbone without a detector's heads")
    _tell_rest(imported)
    aside = set_aside(imported)
    if aside:
        say(f"  left aside, as it tells ImageNet's classes: {_some(aside)}")
    kept = save_backbone(backbone, imported.dialect, output, record=describe_import(imported, checkpoint, []))
    for path, value in kept.settings.items():
        say(f"    {path} = {_short(value)}")
    _tell_next(output)


def _keep_timm(checkpoint: str, output: Path) -> None:
    from fpn.features.backbones.backbone import Backbone
    from fpn.interop.backbone_files import imagenet_dialect, save_backbone
    from fpn.interop.beginnings import timm_name

    backbone = Backbone(timm_name(checkpoint), weights="imagenet")
    dialect = imagenet_dialect(backbone)
    save_backbone(backbone, dialect, output, record={"from": checkpoint, "toolkit": "timm"})
    say(f"{checkpoint}: ImageNet weights of timm, a backbone without a detector's heads")
    _tell_next(output)


def _tell_next(output: Path) -> None:
    say(f"backbone: {output}")
    say(f"Next:\n  fpn train YOUR-DATA --init {output} --output runs/first")


def _tell(imported: ImportedWeights, checkpoint: str) -> None:
    from fpn.interop.importing import require_detector

    recipe = require_detector(imported, checkpoint).recipe
    shown = ", ".join(recipe.classes[:3]) + (", ..." if len(recipe.classes) > 3 else "")
    say(f"{checkpoint}: {imported.form}, weights of {imported.toolkit}")
    say(f"  {recipe.kind} on {recipe.backbone}, {recipe.neck}, {counted(len(recipe.classes), 'class')} ({shown})")
    say(f"  conventions of {imported.dialect.name}; other than usual there:{'' if imported.findings else ' nothing'}")
    for finding in imported.findings:
        say(f"    {finding}")
    if imported.assumed:
        say("  as usual there, for the weights do not tell (--set or --config do):")
    for section, settings in groupby(imported.assumed, lambda each: each.setting.partition(".")[0]):
        told = (f"{each.setting.partition('.')[2]} {_short(each.value)}" for each in settings)
        say(f"    {section}: {', '.join(told)}")
    if recipe.classes[0] == "class 1":
        hint = " (as many as COCO has: --classes coco)" if len(recipe.classes) in (80, 90, 91) else ""
        say_warning(f"the {len(recipe.classes)} classes have no names: --classes gives them{hint}")
    _tell_rest(imported)


def _tell_rest(imported: ImportedWeights) -> None:
    from fpn.interop.findings import needed

    for remark in imported.remarks:
        say_warning(remark)
    skipped = ", ".join(f"{count} {name}" for name, count in imported.skipped.items())
    if skipped:
        say(f"  left out of the file, as no detector needs it: {skipped}")
    leftover = needed(imported.leftover)
    if leftover:
        say_warning(f"{len(leftover)} names had no place: {_some(leftover)}")
    if imported.missing:
        say_warning(f"{len(imported.missing)} weights were missing and are random: {_some(imported.missing)}")


def _short(value: object) -> str:
    from fpn.interop.findings import show_setting

    text = show_setting(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
