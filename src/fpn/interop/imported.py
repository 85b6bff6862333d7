"""What an import gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from fpn.detectors.dialect import Dialect

State: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class ImportedWeights:
    """Another toolkit's weights in one of our modules.

    Attributes:
        module: a `Detector` when the names describe one, else the features module (pixels (B, 3, H, W) -> Features), or
            without a backbone the neck (Features -> Features); in eval mode.
        dialect: the conventions it was built with; widths are those of the weights.
        leftover: names that found no place, such as a mask head's or the counters of batch norms; of a head that came
            without the other one, our names.
    """

    module: nn.Module
    dialect: Dialect
    leftover: tuple[str, ...]
