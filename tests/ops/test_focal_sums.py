from __future__ import annotations

import pytest
import torch

from fpn.ops import focal_sums
from fpn.ops.focal_sums import background_sums
from fpn.ops.losses import focal_of_background


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1.0, 1.5)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_sums_and_gradients_are_those_of_the_loss_logit_by_logit(alpha, gamma, order, monkeypatch) -> None:
    monkeypatch.setattr(focal_sums, "_TOGETHER", 8)  # several parts, the last one smaller
    random = torch.Generator().manual_seed(0)
    # Two images, three anchors, five classes, 2 x 3 cells; scores from 1e-9 to almost 1.
    logits = (20 * torch.randn(2, 15, 2, 3, generator=random)).contiguous(memory_format=order).requires_grad_()
    found = background_sums(logits, anchors=3, alpha=alpha, gamma=gamma)
    losses = focal_of_background(logits.double(), alpha=alpha, gamma=gamma)
    wanted = losses.reshape(2, 3, 5, 2, 3).sum(dim=2).permute(0, 2, 3, 1).flatten(1)  # -> (B, H*W*A)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-6)
    theirs = torch.randn(2, 18, generator=random)
    gradients = [torch.autograd.grad(each, logits, theirs.to(each), retain_graph=True)[0] for each in (found, wanted)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


def test_no_places_have_no_sums() -> None:
    assert background_sums(torch.zeros(2, 4, 0, 3), anchors=2, alpha=0.25, gamma=2.0).shape == (2, 0)
