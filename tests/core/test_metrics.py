import pytest
import torch

from eta_core import metrics


def test_psnr_of_a_known_error():
    a = torch.zeros(2, 4, 4, 3)
    assert metrics.psnr(a, a + 0.1).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)
    assert metrics.psnr(a, a).isinf().all()


def test_the_background_is_what_the_mask_leaves():
    a, b = torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 3)
    b[:, :2] = 1.0
    b[:, 2:] = 0.01
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1
    assert metrics.background_psnr(a, b, mask).item() == pytest.approx(40.0, abs=1e-3)


def test_a_mask_without_background_is_refused():
    with pytest.raises(ValueError, match="no pixel"):
        metrics.background_psnr(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 2))


def test_iou():
    a = torch.tensor([[[True, True, False]], [[False] * 3]])
    b = torch.tensor([[[False, True, True]], [[False] * 3]])
    assert metrics.iou(a, b).tolist() == pytest.approx([1 / 3, 1.0])
