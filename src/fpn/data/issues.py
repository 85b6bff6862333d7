"""What can be wrong with a dataset: the kinds, and the notes that a check takes where training would stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    pass

Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding.

    Attributes:
        severity: an error stops training or makes it learn or measure something wrong.
        title: what there is so many of.
        remedy: what the reader can do.
        repair: what `fpn check --fix` does about it; empty: nothing.
    """

    severity: Severity
    title: str
    remedy: str
    repair: str = ""


_LABEL_AGAIN = "Label again. fpn train leaves up to 1 % of all boxes out; --drop-invalid any number."
_LEFT_OUT = "leaves them out"

# In the order of the report.
KINDS: Mapping[str, Kind] = {
    "annotations-unreadable": Kind("error", "annotation files that can't be read", "Export them again.", _LEFT_OUT),
    "labels-missing": Kind(
        "error",
        "listed images without their annotation",
        "Restore the annotation, or take the image off the list.",
        _LEFT_OUT,
    ),
    "image-missing": Kind(
        "error",
        "labels without their image",
        "Restore it, say where images are (--images), or remove its labels.",
        _LEFT_OUT,
    ),
    "image-unreadable": Kind(
        "error", "images that can't be read", "Save them again as JPEG or PNG, or remove them.", _LEFT_OUT
    ),
    "path-outside": Kind(
        "error",
        "file names that lead out of the dataset's folder or are none",
        "Write them relative to the folder.",
        _LEFT_OUT,
    ),
    "image-listed-twice": Kind("error", "images listed twice", "Remove one of the entries.", "keeps the first"),
    "size-unusable": Kind(
        "error", "sizes of images that are no whole numbers", "Correct them.", "writes the image's own"
    ),
    "exif-rotation": Kind(
        "error",
        "images turned by EXIF, labelled as if they were not",
        "Training shows them upright, where their boxes don't fit. Turn the boxes, or label again.",
        "turns the boxes with the image",
    ),
    "size-differs": Kind(
        "error",
        "images of another size than their annotation says",
        "If they were scaled after labelling, their boxes are wrong: restore them or label again.",
        "scales the boxes if the proportions are the same, else leaves the image out",
    ),
    "entry-broken": Kind(
        "error", "entries that break the rules of their format", "Label or export them again.", _LEFT_OUT
    ),
    "id-unknown": Kind(
        "error", "objects of a class or image that is not listed", "Correct the id, or list it.", _LEFT_OUT
    ),
    "id-unusable": Kind(
        "error", "ids that are not whole numbers from 0 on", "Number the entries anew.", "gives new ids"
    ),
    "id-repeated": Kind(
        "error",
        "ids given twice",
        "Give each entry its own id.",
        "gives objects new ids, leaves out images whose objects can't be told apart",
    ),
    "class-broken": Kind(
        "error",
        "faults in the list of classes",
        "Write each class once, with a name.",
        "keeps the first of equals, calls nameless ones by their id",
    ),
    "class-spelling": Kind(
        "error",
        "classes whose names differ only by case, spaces or hyphens",
        "Training would take them for different things: spell them alike.",
        "joins them under the commoner name",
    ),
    "class-unknown": Kind(
        "error",
        "classes that the training split does not list",
        "A model trained on it can't be measured on them: list the same classes in each split.",
    ),
    "box-not-finite": Kind("error", "boxes that are no finite numbers", "Label these objects again.", _LEFT_OUT),
    "box-empty": Kind(
        "error",
        "boxes without width or height",
        _LABEL_AGAIN,
        _LEFT_OUT,
    ),
    "box-reversed": Kind(
        "error",
        "boxes whose corners are swapped",
        "Training refuses them. Write left before right and top before bottom.",
        "swaps them back",
    ),
    "line-scored": Kind(
        "error",
        "lines of a box with a confidence behind it",
        "That is what a model writes. Remove the last number if the boxes are labels.",
        "removes the confidence",
    ),
    "box-outside": Kind(
        "error",
        "boxes wholly outside of their image",
        _LABEL_AGAIN,
        _LEFT_OUT,
    ),
    "outline-broken": Kind(
        "error", "outlines that can't be made into masks", "Draw them again.", "removes the outline, keeps the box"
    ),
    "keypoints-broken": Kind(
        "error",
        "keypoints that are not three numbers for each of the skeleton, or a skeleton that is none",
        "Label them again.",
        "removes the keypoints, keeps the box",
    ),
    "split-overlap": Kind(
        "error",
        "images that stand in two splits",
        "What is measured on images of the training is too good. Keep each in one split.",
        "keeps them in the first of test, val, train",
    ),
    "objects-none": Kind(
        "error",
        "splits without an object that could be learned or measured",
        "Label some, or see below which files were left aside.",
    ),
    "name-repaired": Kind(
        "warning",
        "names of files that are not written as the files are called",
        "Each has one match, which is taken. Write them as the files are called.",
        "writes them so",
    ),
    "image-merged": Kind(
        "warning",
        "images that are listed several times, each time with other objects",
        "Their objects are put together. List each image once.",
        "lists each once",
    ),
    "box-mended": Kind(
        "warning",
        "boxes that are made from what else their entry says",
        "See that they fit, with a viewer.",
        "writes them so",
    ),
    "shape-aside": Kind(
        "warning",
        "files with shapes that are no objects: points, lines, or labelled __ignore__",
        "Draw a polygon or a rectangle where an object is meant.",
        "leaves the shapes out",
    ),
    "keypoints-unnamed": Kind(
        "warning",
        "keypoints whose categories do not say what they are: they are not read",
        "List their names in each category: 'keypoints', and 'skeleton' if lines are to be drawn.",
    ),
    "split-missing": Kind(
        "warning",
        "splits that are named but not there",
        "Restore the folder, or take the split out of the file. The others can be used.",
    ),
    "class-unnamed": Kind(
        "warning",
        "datasets whose classes have no names",
        "They are called 0, 1, 2, ... List the names in classes.txt, one a line.",
    ),
    "file-aside": Kind(
        "warning",
        "files that look like images or labels and are not read",
        "Move or convert them if they belong to the dataset.",
        "does not copy them",
    ),
    "split-alike": Kind(
        "warning",
        "pairs of images of two splits that look alike",
        "Look at them: frames of one scene in two splits make measurements too good.",
    ),
    "images-equal": Kind(
        "warning", "images whose content is there twice", "Keep one of them.", "keeps the first of a split"
    ),
    "images-alike": Kind(
        "warning", "pairs of images that look alike within a split", "Harmless if each is labelled well."
    ),
    "exif-unclear": Kind(
        "warning",
        "images turned or mirrored by EXIF, perhaps not when labelled",
        "Training shows them upright. See that the boxes fit with `fpn predict` or a viewer.",
    ),
    "image-cut-short": Kind(
        "warning",
        "images whose end is missing",
        "They are used, and what is missing is grey. Restore them.",
    ),
    "image-dark": Kind(
        "warning",
        "images of more than 8 bits that are seen too dark, or each at a brightness of its own",
        "Training takes one range that fits them all, and its model keeps it; `--pixel-range` names another. Colour of "
        "16 bits has to be saved with 8.",
    ),
    "image-part-unread": Kind(
        "warning", "images of which a part is not read", "Save what is meant as images of their own."
    ),
    "suffix-wrong": Kind(
        "warning",
        "images of another kind than their name says",
        "They can be read here; other programs may fail. Rename them.",
        "renames them",
    ),
    "image-unlabelled": Kind(
        "warning", "images without labels", "Training does not see them. Label them, or leave them."
    ),
    "box-over-edge": Kind(
        "warning", "boxes that reach over the edge of their image", "They are cut there when read.", "cuts them"
    ),
    "box-tiny": Kind(
        "warning", "boxes narrower or lower than 2 pixels", "If these are slips of the mouse, remove them."
    ),
    "box-repeated": Kind(
        "warning", "objects labelled twice with the same class", "Remove one of the two.", "keeps the first"
    ),
    "box-contradicted": Kind("warning", "boxes that have two classes", "Decide which it is, and remove the other."),
    "objects-many": Kind(
        "warning",
        "images with more objects than a model gives detections",
        "Allow more, in training, evaluation and prediction: --max-detections.",
    ),
    "outline-short": Kind(
        "warning",
        "outlines with a polygon of less than 3 points",
        "Such a polygon has no area: draw it again.",
        "removes the polygon",
    ),
    "outline-crossing": Kind(
        "warning", "outlines that cross themselves", "Where the line crosses, the mask may have holes: draw it again."
    ),
    "outline-elsewhere": Kind(
        "warning",
        "outlines that are not where their box is",
        "One of the two is wrong. Draw it again, or have the box made from the outline.",
    ),
    "keypoint-elsewhere": Kind(
        "warning",
        "labelled keypoints outside of their image, or far from their object",
        "Put them where they are seen, or label them as not there (visibility 0).",
    ),
    "class-unused": Kind(
        "warning", "classes without objects", "They can't be learned. Label some, or take them off the list."
    ),
    "class-untrained": Kind(
        "warning", "classes without objects in the training split", "They can't be learned there. Divide anew."
    ),
    "anchor-unreached": Kind("warning", "objects that no anchor fits", "The table of anchors says which others would."),
    "image-empty": Kind("information", "images without objects", "They serve as background."),
    "crowd": Kind("information", "crowds or difficult objects", "They are neither learned nor counted as missed."),
    "id-gaps": Kind("information", "gaps in the ids", "Ids are kept as they are."),
    "split-contained": Kind("information", "splits that are part of another", "Don't measure on what you train on."),
}

# What `drop_invalid` leaves out.
INVALID_BOXES = frozenset({"box-not-finite", "box-empty", "box-outside"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found; `file` is relative to the dataset's folder, or empty."""

    kind: str
    message: str
    file: str = ""
