"""The learning rate over the training."""

WARM_UP = 0.25  # share of the training in which the learning rate rises


def slanted_triangle(done):
    """The factor of the learning rate when this share of the training is done: up in the first quarter, then down to 0.

    Adam's first steps change each weight as much as it allows, however small the gradient is: at the full rate they
    spoil what VGG-16 has learned. The shape is that of Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section
    3.2, with a longer rise, and down to 0.
    """
    return min(done / WARM_UP, (1 - done) / (1 - WARM_UP))
