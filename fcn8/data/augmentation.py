"""Augmentation: each picture is mirrored, shifted, relit and shadowed at random, and its label with it."""
import numpy as np

SHIFT = 0.1  # of height and width, at most, in either direction
BRIGHTNESS = 40  # of 255, at most, up or down
CONTRAST = 0.3  # at most, up or down
SHADOW = 0.4, 0.8  # the share of the light that is left in a shadow


def augment(picture, label, random):
    """A variant: mirrored, shifted, in another light, with a shadow, each at random.

    picture: uint8 [height, width, 3].
    label: bool [height, width, classes], one-hot; an all-False pixel is ignored.
    random: np.random.RandomState, the only source of randomness.

    Returns (picture, label) of the same shapes and types.
    """
    if random.rand() < 0.5:
        picture, label = picture[:, ::-1], label[:, ::-1]
    picture, label = shift(picture, label, random)
    picture = relight(picture, random)
    return (cast_shadow(picture, random) if random.rand() < 0.5 else picture), label


def shift(picture, label, random):
    """Both moved together: what comes in at the edge repeats the picture's last pixels, and is ignored."""
    height, width = picture.shape[:2]
    down, right = (random.randint(-int(SHIFT * side), int(SHIFT * side) + 1) for side in (height, width))
    rows, columns = np.arange(height) - down, np.arange(width) - right
    picture = picture[np.clip(rows, 0, height - 1)[:, np.newaxis], np.clip(columns, 0, width - 1)]
    label = np.roll(label, (down, right), axis=(0, 1))
    label[(rows < 0) | (rows >= height)] = False
    label[:, (columns < 0) | (columns >= width)] = False
    return picture, label


def relight(picture, random):
    """The picture with another brightness and another contrast."""
    contrast, brightness = 1 + random.uniform(-CONTRAST, CONTRAST), random.uniform(-BRIGHTNESS, BRIGHTNESS)
    middle = picture.mean()
    levels = (np.arange(256) - middle) * contrast + middle + brightness
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)[picture]


def cast_shadow(picture, random):
    """The picture with a shadow from the upper to the lower edge, like that of a tree or a house."""
    height, width = picture.shape[:2]
    down = np.linspace(0, 1, height)[:, np.newaxis]
    (left_above, right_above), (left_below, right_below) = np.sort(random.uniform(0, width, (2, 2)), axis=1)
    columns = np.arange(width)
    shadow = ((columns > left_above + (left_below - left_above) * down) &
              (columns < right_above + (right_below - right_above) * down))
    levels = np.rint(np.arange(256) * random.uniform(*SHADOW)).astype(np.uint8)
    return np.where(shadow[..., np.newaxis], levels[picture], picture)
