"""The contrastive loss between images and texts, with features gathered over ranks."""

from torch import Tensor


def contrastive_loss(image: Tensor, text: Tensor, logit_scale: Tensor, rank: int = 0, world_size: int = 1) -> Tensor:
    """(B, E) unit image and text features, () log of the inverse temperature -> ().

    Each rank compares its own rows with those of all ranks, and gradients flow back to all; averaged over ranks, loss
    and gradients are those of one process with the whole batch. Every rank must hold the same number of rows.

    Source: CLIP (arXiv 2103.00020), by open_clip's `ClipLoss`.
    """
    from open_clip import ClipLoss

    loss = ClipLoss(local_loss=world_size > 1, gather_with_grad=world_size > 1, rank=rank, world_size=world_size)
    return loss(image.float(), text.float(), logit_scale.float().exp())
