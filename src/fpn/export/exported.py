"""An exported file as a detector: it detects as others do, and can be neither trained nor saved."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fpn.detectors.detector import Detector
from fpn.detectors.model_file import recipe_of, shown
from fpn.detectors.prediction import TaskName
from fpn.errors import ConfigError, ModelFileError
from fpn.export.header import FILE_FORMAT, OUTPUT_NAMES
from fpn.export.runtimes import Arrays, Runtime, as_arrays
from fpn.heads.sampling import Randomness
from fpn.preprocessing.config import PixelsConfig
from fpn.preprocessing.frame import Frame
from fpn.preprocessing.preprocessor import Prepared, Preprocessor
from fpn.shapes import Size
from fpn.structures import Detections, ImageBatch, LossTerms, Targets
from fpn.structures.thresholds import read_thresholds


@dataclass(frozen=True)
class UnchangedImages(Preprocessor):
    """Images as they are, for files that have the preprocessor inside."""

    @property
    def size_multiple(self) -> int:
        """See `Preprocessor.size_multiple`."""
        return 1

    def prepare(self, image: Image.Image, targets: Targets | None = None) -> Prepared:
        """See `Preprocessor.prepare`; pixels are (3, h, w) uint8."""
        size = Size(image.height, image.width)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return Prepared(pixels, targets, Frame(size, size, (1.0, 1.0)))

    def min_size(self, original: Size, *, zoom: float = 1.0) -> Size:
        """See `Preprocessor.min_size`: boxes come back in pixels of what goes in."""
        return original

    def collate(self, pixels: Sequence[Tensor], frames: Sequence[Frame] | None = None) -> ImageBatch:
        """See `Preprocessor.collate`; `sizes` tell images from padding."""
        sizes = torch.tensor([list(each.shape[-2:]) for each in pixels], dtype=torch.int64)
        batch = torch.zeros(len(pixels), 3, *sizes.amax(dim=0).tolist(), dtype=torch.uint8)
        for row, image in zip(batch, pixels, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        return ImageBatch(batch, sizes)


@dataclass(frozen=True)
class RuntimeInfo:
    """How an exported detector works; `str` of it is one short line.

    Attributes:
        runtime: what runs it.
        inside: whether the preprocessor is in the file.
        precision: of the network's arithmetic.
        device: where.
    """

    runtime: str
    inside: bool
    precision: str = "float32"
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.precision} on {self.device}, {self.runtime}{', preprocessor inside' if self.inside else ''}"


class ExportedDetector(Detector):
    """What `fpn.load` makes of an exported file.

    Attributes:
        info: how it works.
        certificate: how near it came to the model that it was made of; None: the file does not say.
        where: what messages call it.

    Args:
        runtime: the file, ready to run.
        header: what it says about itself.
        where: what messages call it.

    Raises:
        ModelFileError: the header is damaged, or of a newer format.
    """

    saveable = False

    def __init__(self, runtime: Runtime, header: Mapping[str, Any], *, where: str) -> None:
        recipe, inside = recipe_of(header, where), header.get("images") == "original"
        try:
            newer = int(header["format"]) > FILE_FORMAT
            pixels = PixelsConfig(**header["pixels"])
            outputs = tuple(str(name) for name in header["outputs"])
            thresholds = read_thresholds(header["thresholds"], len(recipe.classes)) if "thresholds" in header else None
            record = dict(header.get("training", {}))
        except (LookupError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"{where}: what it says about itself is damaged ({error}). Export it again."
            ) from error
        if newer:
            raise ModelFileError(f"{where}: written by fpn {shown(header.get('fpn'))} in a newer format. Update fpn.")
        if outputs[:4] != OUTPUT_NAMES[:4] or not set(outputs) <= set(OUTPUT_NAMES):
            raise ModelFileError(f"{where}: gives other outputs than fpn knows. Export it again.")
        preprocessor = UnchangedImages(pixels) if inside else Preprocessor(pixels)
        super().__init__(classes=recipe.found, preprocessor=preprocessor, recipe=recipe)
        self.training_record = record
        self.thresholds = thresholds
        self.certificate: Mapping[str, Any] | None = header.get("certificate")
        self.info = RuntimeInfo(runtime.name, inside, str(header.get("precision", "float32")))
        self.bucket = 1 if inside else self.bucket
        self._runtime, self._outputs, self._inside, self.where = runtime, outputs, inside, where
        self.eval()

    @property
    def device(self) -> torch.device:
        """See `Detector.device`."""
        return torch.device("cpu")

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """See `Detector.tasks`: proposals are not among what a file gives."""
        masks: tuple[TaskName, ...] = ("masks",) if "masks" in self._outputs else ()
        keypoints: tuple[TaskName, ...] = ("keypoints",) if "keypoints" in self._outputs else ()
        return ("boxes", *masks, *keypoints)

    def losses(self, images: ImageBatch, targets: Sequence[Targets], *, generator: Randomness = None) -> LossTerms:
        """Not of an exported file.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("an exported file can't be trained: train the model that it was made of")

    def detect(self, images: ImageBatch) -> list[Detections]:
        """See `Detector.detect`; with the preprocessor inside, images are uint8 and boxes in their pixels."""
        if not self._inside:
            return self._run(as_arrays(["pixels", "sizes"], [images.pixels, images.sizes]))
        found: dict[int, Detections] = {}
        for numbers in _of_one_size(images):
            height, width = images.sizes[numbers[0]].tolist()
            whole = images.pixels[numbers, :, :height, :width].permute(0, 2, 3, 1)
            found |= zip(numbers, self._run(as_arrays(["images"], [whole])), strict=True)
        return [found[number] for number in range(len(images))]

    def _run(self, arrays: Arrays) -> list[Detections]:
        values = [*map(torch.from_numpy, self._runtime(arrays))]
        if len(values) != len(self._outputs):
            raise ModelFileError(
                f"{self.where}: gives {len(values)} outputs and says {len(self._outputs)}. Export it again."
            )
        found = dict(zip(self._outputs, values, strict=True))
        return [self._of_image(found, number, int(count)) for number, count in enumerate(found["counts"])]

    def _of_image(self, found: Mapping[str, Tensor], number: int, count: int) -> Detections:
        own = {name: values[number, :count] for name, values in found.items() if name != "counts"}
        return Detections(
            own["boxes"],
            own["scores"],
            own["labels"],
            keypoints=own.get("keypoints"),
            mask_probabilities=own.get("masks"),
        )


def _of_one_size(images: ImageBatch) -> list[list[int]]:
    """Numbers of images that can go in together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, size in enumerate(images.sizes.tolist()):
        groups.setdefault(tuple(size), []).append(number)
    return list(groups.values())


# Ending -> `fpn export --format`.
_FORMATS = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}


def export_with(file: str, most: int, more: str = "") -> str:
    """How to get a file like this one that gives more detections.

    Args:
        file: ends as exported files do.
        most: the most detections an image.
        more: other options of its export.
    """
    ending = Path(file).suffix
    written = Path(file).with_name(f"{Path(file).stem}-{most}{ending}")
    return (
        f"Export its model anew: fpn export MODEL.safetensors --format {_FORMATS.get(ending, 'onnx')}{more} "
        f"--max-detections {most} --output {shlex.quote(str(written))}"
    )


def allow_more(detector: object, most: int) -> str:
    """A sentence on how to have a detector give more detections an image, at most `most`."""
    if not isinstance(detector, ExportedDetector):
        return f"Allow more: --max-detections {most}"
    more = "" if detector.info.inside else " --bare"
    more += " --int8 DATA" if "int8" in detector.info.precision else ""
    return f"The limit is a part of an exported file. {export_with(detector.where, most, more)}"
