"""Plain vision transformers (ViT, DeiT, DINOv2, DINOv3, CLIP): one map, which the neck `simple_pyramid` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.layers import resample_patch_embed
from torch import Tensor, nn

# The stride of c4. Other patches (14 pixels in DINOv2, 32 in some of CLIP) are resampled to this size.
PATCH_PIXELS = 16
_PATCH_WEIGHT = "patch_embed.proj.weight"


def is_plain(net: Any) -> bool:
    """Whether timm's network (`features_only`) cuts an image into patches and keeps their number throughout."""
    return hasattr(getattr(net, "model", None), "patch_embed") and len(set(net.feature_info.reduction())) == 1


def plain_options(net: Any) -> dict[str, Any]:
    """What timm has to be told to make it take images of any size in patches of 16 pixels.

    The table of positions is kept as it is, one for each patch that the model was trained with, and is resampled to the
    image at hand.
    """
    options: dict[str, Any] = {"dynamic_img_size": True}
    rows, columns = net.model.patch_embed.grid_size
    if set(net.model.patch_embed.patch_size) != {PATCH_PIXELS}:
        options |= {"patch_size": PATCH_PIXELS, "img_size": (PATCH_PIXELS * rows, PATCH_PIXELS * columns)}
    return options


def fit_patches(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint whose patches have another size than the network's: their weights are resampled.

    Source: Beyer et al. 2022, arXiv:2212.08013, section 3.4, as timm has it.
    """
    wanted = {name: value for name, value in net.state_dict().items() if name.endswith(_PATCH_WEIGHT)}
    fitted = dict(state)
    for size in (value.shape[2:] for value in wanted.values() if value.ndim == 4):
        for name, value in state.items():
            if name.endswith(_PATCH_WEIGHT) and value.ndim == 4 and value.shape[2:] != size:
                fitted[name] = resample_patch_embed(value, list(size))
    return fitted
