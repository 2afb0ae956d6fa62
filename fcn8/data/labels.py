"""Labels: pictures whose colours or grey values are classes, read and checked."""
import numpy as np
from PIL import Image

from fcn8.data import images
from fcn8.data.classes import KITTI_ROAD, is_colour
from fcn8.errors import UserError


def read_label(path, image_shape=None, classes=KITTI_ROAD):
    """The label as bool [height, width, classes], one-hot; an all-False pixel is ignored.

    image_shape: (height, width) to which it is resized, if any.
    classes: the Classes whose colours it has.

    Raises UserError if it has another colour.
    """
    with images.opened(path) as image:
        readings = _readings(path, image, classes)
    for image, known in readings:
        found = image.getcolors(len(known))  # None: there are more
        if found and {colour for _, colour in found} <= set(known):
            break
    else:
        raise _unknown_colours(path, np.asarray(readings[0][0]), classes)
    if image_shape:
        image = image.resize(image_shape[::-1], Image.NEAREST)  # a blend of two colours would be a third
    return classes.one_hot(np.asarray(image))


def _readings(path, image, classes):
    """[(image in RGB, {colour: name} of the classes in it)]: what the pixels of a label may mean, the likeliest first.

    Those of a palette are its colours, and if these are not all greys, or else its indices, as in Pascal VOC's labels.
    """
    highest = image.getextrema()[1] if image.mode.startswith('I') else 0  # 16 bits: greater ones would become 255
    if 255 < highest < 65535:
        raise UserError(f'{path}: its grey values go up to {highest}. Convert it to values from 0 to 255')
    readings = [(image.convert('RGB'), classes.colours)]
    if image.mode == 'P' and classes.greys:
        palette = np.reshape(image.getpalette(), (-1, 3))
        if (palette != palette[:, :1]).any():
            readings.append((Image.fromarray(np.asarray(image)).convert('RGB'), classes.greys))
    return readings


def _unknown_colours(path, label, classes):
    known = np.logical_or.reduce([is_colour(label, colour) for colour in classes.colours])
    row, column = np.argwhere(~known)[0]
    return UserError('{}: unknown colour {} in row {}, column {} (pixels of unknown colours: {}). A label has the '
                     'colours {}. Correct it, or train with --classes that name its colours'.format(
                         path, tuple(label[row, column].tolist()), row, column, np.count_nonzero(~known),
                         ', '.join(f'{name} {colour}' for colour, name in classes.colours.items())))
