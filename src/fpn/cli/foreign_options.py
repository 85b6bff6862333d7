"""What other programs call an option, and what it is called here: an option, a word without one, or a setting."""

from __future__ import annotations

from collections.abc import Collection

_TRAINED = "It is a matter of training: see fpn train --help."
_SIZE = "Images are resized as they were for the training: fpn train --short-side and --long-side set that."
_SHOWN = "Detections of every score count here; fpn predict --score chooses which are drawn."
_NMS = "The IoU of NMS is the model's own: fpn train --set box.nms=0.5 (dense.nms of one-stage detectors) sets it."
_ALWAYS = "Results are always written, into --output."
_DATA = ("DATA", "--validation", "--labelled")
_MODEL = ("MODEL", "MODELS", "CHECKPOINT", "--init")
_IMAGES = ("IMAGES", "SOURCES", "FOLDER", "DATA")

# Without case, hyphens and underscores -> what the verb may have, the best first; then what to say if it has none.
_NAMES: dict[tuple[str, ...], tuple[tuple[str, ...], str]] = {
    ("lr", "lr0"): (("--learning-rate",), _TRAINED),
    ("conf", "confidence", "threshold", "confthres", "confthreshold", "scorethr", "scorethreshold", "minscore"): (
        ("--score",),
        _SHOWN,
    ),
    ("iou", "iouthres", "iouthreshold", "nms", "nmsthres", "nmsthreshold"): ((), _NMS),
    ("imgsz", "imagesize", "imgsize", "img", "resize"): (("--short-side",), _SIZE),
    ("batch", "bs", "imsperbatch", "samplespergpu"): (("--batch-size",), ""),
    ("gpu", "gpus", "numgpus", "cuda", "ngpu"): (("--device",), ""),
    ("out", "outdir", "outputdir", "savedir", "workdir", "project", "name"): (("--output", "OUT"), ""),
    ("pretrained",): (("--init",), _TRAINED),
    ("model", "checkpoint", "ckpt"): (("--backbone", *_MODEL), ""),
    ("weights",): (_MODEL, _TRAINED),
    ("maxdet", "maxdets"): (("--max-detections",), ""),
    ("nepochs", "numepochs", "maxepochs", "epochs", "epoch"): (("--epochs",), _TRAINED),
    ("data", "dataset", "datapath", "datadir"): (_DATA, ""),
    ("source", "input", "inputs", "image", "imagedir"): (_IMAGES, ""),
    ("savetxt", "saveconf", "savejson", "save"): ((), _ALWAYS),
    ("half", "fp16", "amp"): (("--precision", "--arithmetic"), ""),
    ("cfg", "configfile", "hyp"): (("--config",), _TRAINED),
    ("cfgoptions", "opts"): (("--set",), _TRAINED),
    ("vidstride",): (("--every",), ""),
    ("numworkers",): (("--workers",), ""),
    ("format",): (("--to",), ""),
    ("to",): (("--format",), ""),
}
_OF = {name: meant for names, meant in _NAMES.items() for name in names}


def meant_elsewhere(word: str, known: Collection[str]) -> str | None:
    """What to say of an option that another program has; "": nothing here does that; None: it is of none that we know.

    Args:
        word: without leading hyphens.
        known: options of the verb, hyphens included, and its words that have none, such as DATA.
    """
    meant = _OF.get(word.casefold().replace("-", "").replace("_", ""))
    if meant is None:
        return None
    ours, otherwise = meant
    found = next((name for name in ours if name in known), None)
    if found is None:
        return f" {otherwise}" if otherwise else ""
    return f" Did you mean {found}?" if found.startswith("--") else f" {found} stands by itself, without an option."
