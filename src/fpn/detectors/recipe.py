"""What a detector is made of, as one checked value: what presets make, builders take and model files hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from fpn.detectors.dialect import (
    ATSSDialect,
    CascadeDialect,
    CascadeMaskDialect,
    Dialect,
    FCOSDialect,
    KeypointDialect,
    MaskDialect,
    RetinaNetDialect,
    SegmentDialect,
    TwoStageDialect,
)
from fpn.errors import ConfigError
from fpn.features.necks.designs import named_design
from fpn.sections import Section
from fpn.structures import OBJECT, Classes, Skeleton
from fpn.suggestions import nearest

_MAX_CLASSES = 100_000
_MAX_KEYPOINTS, _MAX_EDGES = 1000, 10_000

Name = Annotated[str, Field(min_length=1, max_length=200)]


class Recipe(Section):
    """What every kind of detector has. Whatever can be built from it can be saved, and loaded again.

    Attributes:
        class_free: whether it tells no classes apart, so that all objects of any data are of one class to it.
    """

    class_free: ClassVar[bool] = False

    kind: str = Field(description="Which detector.")
    backbone: Name = Field(default="resnet50", description="Name of a timm model with feature maps.")
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = Field(
        default=2, description="Stages of the backbone that are not trained, stem included."
    )
    frozen_norm: bool = Field(
        default=True, description="Batch norms of the backbone keep their statistics and weights."
    )
    neck: Name = Field(
        default="fpn",
        description="How bottom-up maps become levels: fpn, what the paper compares it with, or what came later.",
    )
    classes: tuple[str, ...] = Field(max_length=_MAX_CLASSES, description="Names of what is found, in label order.")
    category_ids: tuple[int, ...] = Field(description="The classes' ids in the data's own files.")
    dialect: Dialect = Field(description="The conventions of all parts.")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if not self.classes:
            raise ValueError("classes (): a detector needs at least one class")
        Classes(self.classes, self.category_ids)
        named_design(self.neck)
        wanted = type(self).dialect_type()
        if type(self.dialect) is not wanted:  # sections that are not declared would be lost in a file
            raise ValueError(
                f"dialect {self.dialect.name!r}: a {self.kind} takes a {wanted.__name__}, this is a "
                f"{type(self.dialect).__name__}"
            )
        return self

    @classmethod
    def dialect_type(cls) -> type[Dialect]:
        """Whose sections this kind of detector has."""
        declared: type[Dialect] = cls.model_fields["dialect"].annotation  # type: ignore[assignment]
        return declared

    @property
    def found(self) -> Classes:
        """The classes with their ids."""
        return Classes(self.classes, self.category_ids)

    @property
    def skeleton(self) -> Skeleton | None:
        """What an object's keypoints are; None: this kind of detector gives none."""
        return None

    @property
    def max_detections(self) -> int | None:
        """The most detections of an image; None: this kind of detector has no such limit."""
        return self.dialect.max_detections

    def limited(self, most: int) -> Recipe:
        """The same with another limit of detections an image; weights do not depend on it.

        Raises:
            ConfigError: this kind of detector has no such limit, or it is below 1.
        """
        raise ConfigError(f"max_detections {most}: a {self.kind} has no limit of detections")


class TwoStageRecipe(Recipe):
    """What detectors of proposals and heads on them have in common."""

    dialect: TwoStageDialect = Field(description="The conventions of all parts.")

    def limited(self, most: int) -> TwoStageRecipe:
        """See `Recipe.limited`."""
        return self.changed(dialect={"box": {"limit": most}})


class FasterRCNNRecipe(TwoStageRecipe):
    """Faster R-CNN on a feature pyramid."""

    kind: Literal["faster_rcnn"] = Field(default="faster_rcnn", description="Which detector.")


class CascadeRCNNRecipe(TwoStageRecipe):
    """Faster R-CNN with several box heads in a row."""

    kind: Literal["cascade_rcnn"] = Field(default="cascade_rcnn", description="Which detector.")
    dialect: CascadeDialect = Field(description="The conventions of all parts.")


class MaskRCNNRecipe(TwoStageRecipe):
    """Faster R-CNN that also gives the mask of each object."""

    kind: Literal["mask_rcnn"] = Field(default="mask_rcnn", description="Which detector.")
    dialect: MaskDialect = Field(description="The conventions of all parts.")


class CascadeMaskRCNNRecipe(TwoStageRecipe):
    """Faster R-CNN with several box heads in a row that also gives the mask of each object."""

    kind: Literal["cascade_mask_rcnn"] = Field(default="cascade_mask_rcnn", description="Which detector.")
    dialect: CascadeMaskDialect = Field(description="The conventions of all parts.")


class KeypointRCNNRecipe(TwoStageRecipe):
    """Faster R-CNN that also gives the keypoints of each object."""

    kind: Literal["keypoint_rcnn"] = Field(default="keypoint_rcnn", description="Which detector.")
    dialect: KeypointDialect = Field(description="The conventions of all parts.")
    keypoints: tuple[str, ...] = Field(
        min_length=1, max_length=_MAX_KEYPOINTS, description="Names of an object's keypoints, in order."
    )
    flip_pairs: tuple[tuple[int, int], ...] = Field(
        default=(), max_length=_MAX_KEYPOINTS, description="Numbers of keypoints that change places in a mirror."
    )
    edges: tuple[tuple[int, int], ...] = Field(
        default=(), max_length=_MAX_EDGES, description="Numbers of keypoints that a line joins where they are drawn."
    )
    sigmas: tuple[float, ...] = Field(
        default=(), description="Falloffs of COCO's object keypoint similarity; empty: not known."
    )

    @model_validator(mode="after")
    def _agree(self) -> KeypointRCNNRecipe:
        try:
            _ = self.skeleton
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def skeleton(self) -> Skeleton:
        """See `Recipe.skeleton`."""
        return Skeleton(self.keypoints, self.flip_pairs, self.edges, self.sigmas)


def skeleton_fields(skeleton: Skeleton) -> dict[str, Any]:
    """What a recipe with keypoints says of them, by its settings' names."""
    return {
        "keypoints": skeleton.names,
        "flip_pairs": skeleton.flip_pairs,
        "edges": skeleton.edges,
        "sigmas": skeleton.sigmas,
    }


class DenseRecipe(Recipe):
    """What detectors without a second stage share."""

    def limited(self, most: int) -> DenseRecipe:
        """See `Recipe.limited`."""
        return self.changed(dialect={"dense": {"limit": most}})


class RetinaNetRecipe(DenseRecipe):
    """RetinaNet."""

    kind: Literal["retinanet"] = Field(default="retinanet", description="Which detector.")
    dialect: RetinaNetDialect = Field(description="The conventions of all parts.")


class FCOSRecipe(DenseRecipe):
    """FCOS."""

    kind: Literal["fcos"] = Field(default="fcos", description="Which detector.")
    dialect: FCOSDialect = Field(description="The conventions of all parts.")


class ATSSRecipe(DenseRecipe):
    """ATSS."""

    kind: Literal["atss"] = Field(default="atss", description="Which detector.")
    dialect: ATSSDialect = Field(description="The conventions of all parts.")


class SegmentProposalsRecipe(Recipe):
    """Segment proposals."""

    class_free: ClassVar[bool] = True

    kind: Literal["segment_proposals"] = Field(default="segment_proposals", description="Which detector.")
    classes: tuple[str, ...] = Field(default=OBJECT.names, description="The one class that all objects are of.")
    category_ids: tuple[int, ...] = Field(default=OBJECT.ids, description="The id of that class.")
    dialect: SegmentDialect = Field(description="The conventions of all parts.")

    @model_validator(mode="after")
    def _unclassified(self) -> SegmentProposalsRecipe:
        if self.found != OBJECT:
            raise ValueError(f"classes {self.classes}: segment proposals tell none apart. Leave them out.")
        return self

    def limited(self, most: int) -> SegmentProposalsRecipe:
        """See `Recipe.limited`."""
        return self.changed(dialect={"segments": {"limit": most}})


# Adding a kind is a line here, a builder, its dialects and a preset.
RECIPES: dict[str, type[Recipe]] = {
    "faster_rcnn": FasterRCNNRecipe,
    "cascade_rcnn": CascadeRCNNRecipe,
    "mask_rcnn": MaskRCNNRecipe,
    "cascade_mask_rcnn": CascadeMaskRCNNRecipe,
    "keypoint_rcnn": KeypointRCNNRecipe,
    "retinanet": RetinaNetRecipe,
    "fcos": FCOSRecipe,
    "atss": ATSSRecipe,
    "segment_proposals": SegmentProposalsRecipe,
}


def read_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check a recipe that came from a file.

    Raises:
        ConfigError: something in it is missing, unknown, of another type, or out of range; the message says what.
    """
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in RECIPES:
        raise ConfigError(f"kind {kind!r}: choose one of {', '.join(RECIPES)}.{nearest(str(kind), RECIPES)}")
    return RECIPES[kind](**{str(name): value for name, value in values.items()})


@contextmanager
def parameter_limit(numbers: int) -> Iterator[None]:
    """Stop building with a ValueError when modules have registered more than `numbers` weights and buffers.

    A layer reserves its memory, is registered, and only then filled: what is too large never really takes its memory.
    """
    builder, total = threading.get_ident(), 0

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal total
        if tensor is None or threading.get_ident() != builder:
            return
        total += tensor.numel()
        if total > numbers:
            raise ValueError("its recipe describes a larger detector than it has weights for")

    hooks = [
        register(count)
        for register in (register_module_parameter_registration_hook, register_module_buffer_registration_hook)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
