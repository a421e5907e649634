import math

import pytest
import torch
from torch.nn import functional as F

from unitok.losses.contrastive import contrastive_loss


def test_against_a_loop():
    torch.manual_seed(0)
    image, text = F.normalize(torch.randn(3, 5), dim=1), F.normalize(torch.randn(3, 5), dim=1)
    total = 0.0
    for i in range(3):
        rows = [10 * float(image[i] @ text[j]) for j in range(3)]
        columns = [10 * float(image[j] @ text[i]) for j in range(3)]
        for scores in (rows, columns):
            total -= math.log(math.exp(scores[i]) / sum(map(math.exp, scores))) / 6
    assert float(contrastive_loss(image, text, torch.tensor(math.log(10)))) == pytest.approx(total, rel=1e-5)
