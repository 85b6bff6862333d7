"""What an import gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor, nn

from fpn.detectors.dialect import Dialect
from fpn.interop.findings import ToldSetting

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
        toolkit: whose names they are.
        form: of the file; nothing for weights that were in memory.
        findings: settings that are not as usual in the toolkit, and how that is known.
        assumed: settings that nothing tells, as they are usual.
        missing: our names for which there were no weights; these are random.
        skipped: how many objects of which class were left out of the file.
        remarks: what else is to be known.
    """

    module: nn.Module
    dialect: Dialect
    leftover: tuple[str, ...]
    toolkit: str = ""
    form: str = ""
    findings: tuple[ToldSetting, ...] = ()
    assumed: tuple[ToldSetting, ...] = ()
    missing: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
