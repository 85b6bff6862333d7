"""`fpn export --format onnx|openvino|torch`: one file, its proof, and a certificate beside it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from fpn.detectors.detector import Detector
from fpn.errors import ConfigError, ModelFileError, OutputError
from fpn.export.certificate import Certificate, certify
from fpn.export.exported import ExportedDetector
from fpn.export.header import ExportFormat, GraphInfo
from fpn.export.loading import RUNTIMES
from fpn.export.runtimes import Runtime, import_openvino
from fpn.files import atomic_path, refuse_unwritable, taken, write_text
from fpn.image_io import read_image

ENDINGS: Mapping[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


@dataclass(frozen=True)
class ExportedFile:
    """What `export_model` has written.

    Attributes:
        path: the file.
        info: what is in it.
        certificate: how near it comes to the model.
        certificate_path: where that is written, too.
    """

    path: Path
    info: GraphInfo
    certificate: Certificate
    certificate_path: Path

    @property
    def what_goes_in(self) -> str:
        """In words."""
        if self.info.images == "original":
            return "takes images, uint8 RGB (N, H, W, 3) of any size"
        return "takes pixels (N, 3, H, W) float32 and sizes (N, 2) int64, as fpn prepares images"


def export_model(
    detector: Detector,
    output: str | os.PathLike[str],
    *,
    format: ExportFormat,
    bare: bool = False,
    images: Sequence[str | os.PathLike[str]] = (),
    allow_inexact: bool = False,
    replace: bool = False,
) -> ExportedFile:
    """Write a detector in a form that other runtimes take, once it has been run and compared with it.

    Batch, height and width are open. `images` (N, H, W, 3) uint8 RGB go in, and out come `boxes` (N, D, 4) xyxy in
    their pixels, `scores` (N, D), `labels` (N, D) from 0 on, and `counts` (N,): how many there are of each image. Bare,
    `pixels` (N, 3, H, W) float32 and `sizes` (N, 2) go in, as `Preprocessor` makes them, and boxes are in their pixels.

    Args:
        detector: as it was trained, on the CPU.
        output: where to: `.onnx`; `.xml` for OpenVINO, whose weights go to a `.bin` beside it; `.pt2` for torch.
        format: which form.
        bare: without the preprocessor.
        images: files for the comparison; none: scenes are drawn.
        allow_inexact: write the file even where it finds something else than the model.
        replace: put it in place of a file that is there.

    Raises:
        ConfigError: a kind or a setting that can't be exported, or an ending that does not fit.
        ModelFileError: the file finds something else than the model.
        ImageError, DataNotFoundError: an image can't be read.
        MissingExtraError: what is needed is not installed.
        OutputError: it can't be written, or something is there already.
    """
    path = Path(output)
    check_place(path, format, replace=replace)
    if format == "openvino":
        check_openvino(detector, bare=bare)
    for each in images:  # what can't be read is told before minutes of work
        read_image(each, pixel_range=detector.preprocessor.config.pixel_range)
    info, write = _writer(detector, format, bare=bare)
    header = info.header(detector)
    with tempfile.TemporaryDirectory() as folder:
        # OpenVINO maps its weights, so that what is proven can't be written over.
        proven, written = (Path(folder) / f"{name}{ENDINGS[format]}" for name in ("proven", "written"))
        write(header, proven)
        certificate = _prove(detector, RUNTIMES[ENDINGS[format]](proven, str(path)), header, images, path)
        if not certificate.exact and not allow_inexact:
            raise ModelFileError(
                f"{path}: not written, since it finds something else than the model: "
                f"{'; '.join(certificate.failures)}. {certificate}. Write it all the same with --allow-inexact."
            )
        header["certificate"] = certificate.to_json()
        write(header, written)
        put(written, path)
    beside = certificate_path(path)
    write_text(beside, json.dumps(certificate.to_json(), indent=1) + "\n")
    return ExportedFile(path, info, certificate, beside)


def certificate_path(path: Path) -> Path:
    """Where the certificate of an exported file lies: files of one name but for the ending each have their own."""
    return path.with_name(f"{path.name}.certificate.json")


def check_place(path: Path, format: ExportFormat, *, replace: bool) -> None:
    """Stop before any work where the files can't be written, or something is in their place.

    Raises:
        ConfigError, OutputError: as `export_model`.
    """
    if path.suffix != ENDINGS[format]:
        raise ConfigError(f"{path}: a file of format {format} ends in {ENDINGS[format]}")
    others = [path.with_suffix(".bin")] if format == "openvino" else []
    for each in (path, *others, certificate_path(path)):
        if each.is_dir():
            raise OutputError(f"{each}: is a folder")
        if each.exists() and not replace:
            raise taken(each, "file", otherwise="say --overwrite (replace=True)")
    refuse_unwritable(path)


def check_extras(format: ExportFormat) -> None:
    """Stop before any work where something is not installed.

    Raises:
        MissingExtraError: as said.
    """
    if format == "openvino":
        import_openvino("--format openvino")  # the extra that it names brings that of ONNX, too
    if format != "torch":
        import fpn.export.onnx_file  # noqa: F401


def check_openvino(detector: Detector, *, bare: bool) -> None:
    """Stop where OpenVINO would round otherwise than the model does.

    Raises:
        ConfigError: as said.
    """
    if not bare and detector.preprocessor.config.resize == "torch":
        raise ConfigError(
            "pixels.resize 'torch' rounds sizes down in float64, which OpenVINO does not have: images would be a pixel "
            "smaller now and then. Export with --bare, or to ONNX."
        )


Writer: TypeAlias = Callable[[Mapping[str, Any], Path], None]


def _writer(detector: Detector, format: ExportFormat, *, bare: bool) -> tuple[GraphInfo, Writer]:
    """What will be in a file, and what writes it with a header."""
    if format == "torch":
        from fpn.export.torch_file import build_torch, save_torch

        program, info = build_torch(detector, bare=bare)
        return info, partial(save_torch, program)
    from fpn.export.onnx_file import build_onnx, save_onnx

    model, info = build_onnx(detector, bare=bare)
    if format == "onnx":
        return info, partial(save_onnx, model)
    from fpn.export.openvino_file import save_openvino

    return info, partial(save_openvino, model.SerializeToString())


def _prove(
    detector: Detector,
    runtime: Runtime,
    header: Mapping[str, Any],
    images: Sequence[str | os.PathLike[str]],
    path: Path,
) -> Certificate:
    exported = ExportedDetector(runtime, header, where=str(path))
    return certify(detector, exported, runtime.name, [Path(each) for each in images])


def put(written: Path, path: Path) -> None:
    """Into place; OpenVINO's weights first: without its `.xml` a `.bin` is nothing that could be loaded."""
    for suffix in (".bin", ".xml") if path.suffix == ".xml" else (path.suffix,):
        with atomic_path(path.with_suffix(suffix)) as temporary:
            shutil.copyfile(written.with_suffix(suffix), temporary)
