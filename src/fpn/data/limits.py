"""How large files and datasets may be that are read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fpn.image_io import MAX_BYTES, MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts, so that a broken or hostile file can't fill the memory.

    Attributes:
        json_bytes: size of a COCO json. The largest public one, Objects365, has 5.6 GB; COCO's own has 0.45 GB.
        text_bytes: size of a YAML or text file.
        xml_bytes: size of an XML file: of one image, so some 20 000 objects.
        objects_per_image: objects of one image.
        image_pixels: height times width of one image.
        image_bytes: size of an image's file.
    """

    json_bytes: int = 6 * 2**30
    text_bytes: int = 64 * 2**20
    xml_bytes: int = 8 * 2**20
    objects_per_image: int = 50_000
    image_pixels: int = MAX_PIXELS
    image_bytes: int = MAX_BYTES

    @classmethod
    def of(
        cls, *, max_pixels: int | None = None, max_objects: int | None = None, max_file_size: int | None = None
    ) -> Limits:
        """The usual limits but for what is given.

        Args:
            max_pixels: height times width of one image.
            max_objects: objects of one image.
            max_file_size: MiB of any file, annotations or image.
        """
        usual = cls()
        kinds = ("json_bytes", "text_bytes", "xml_bytes", "image_bytes")
        sizes = {} if max_file_size is None else dict.fromkeys(kinds, max_file_size * 2**20)
        return replace(
            usual,
            image_pixels=usual.image_pixels if max_pixels is None else max_pixels,
            objects_per_image=usual.objects_per_image if max_objects is None else max_objects,
            **sizes,
        )
