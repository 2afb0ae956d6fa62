"""Labels: pictures whose colours or grey values are classes, read and checked."""
import itertools
import json

import numpy as np
from PIL import Image

from fcn8.data import images
from fcn8.data.classes import KITTI_ROAD, ROAD_PAINT, is_colour
from fcn8.errors import UserError

MANY = 20  # colours of one label: where more are unknown, they come from smoothing or JPEG rather than from classes


def read_label(path, image_shape=None, classes=KITTI_ROAD):
    """The label as bool [height, width, classes], one-hot; an all-False pixel is ignored.

    image_shape: (height, width) to which it is resized, if any.
    classes: the Classes whose colours it has.

    Raises UserError if it has another colour, and if both the colours and the indices of its palette may be meant.
    """
    with images.opened(path) as image:
        readings = _readings(path, image, classes)
    possible = [image for image, known in readings if not _has_others(image, known)]
    if not possible:
        raise _unknown_colours(path, readings, classes)
    image = possible[0]
    if possible[1:] and (classes.one_hot(np.asarray(image)) != classes.one_hot(np.asarray(possible[1]))).any():
        raise UserError(f'{path}: the colours and the indices of its palette are both known classes, but not the same '
                        'ones. Save it as grey or RGB')
    if image_shape:
        image = image.resize(image_shape[::-1], Image.NEAREST)  # a blend of two colours would be a third
    return classes.one_hot(np.asarray(image))


def _has_others(image, known):
    found = image.getcolors(len(known))  # None: there are more
    return found is None or not {colour for _, colour in found} <= set(known)


def _readings(path, image, classes):
    """[(image in RGB, {colour: name} of the classes in it)]: what the pixels of a label may mean, the likeliest first.

    Those of a palette are its colours or, where these are not all greys, its indices, as in Pascal VOC's labels.
    """
    if image.mode.startswith('I'):  # 16 bits: all above 255 would become 255, which is right for 65535 alone
        values = np.asarray(image)
        if ((values > 255) & (values != 65535)).any():
            raise UserError(f'{path}: its grey values go up to {values.max()}. Convert it to values from 0 to 255')
    readings = [(image.convert('RGB'), classes.colours)]
    if image.mode == 'P' and classes.greys:
        palette = np.reshape(image.getpalette(), (-1, 3))
        if (palette != palette[:, :1]).any():
            readings.append((Image.fromarray(np.asarray(image)).convert('RGB'), classes.greys))
    return readings


def _unknown_colours(path, readings, classes):
    """The UserError for a label, about that of its readings in which the fewest pixels are unknown."""
    image, known = min(readings, key=lambda reading: sum(_count(*reading).values()))
    unknown = _count(image, known)
    colour = next(iter(unknown))
    row, column = np.argwhere(is_colour(np.asarray(image), colour))[0]
    advice = _advice(list(_count(image)), list(unknown), classes)
    return UserError(f'{path}: unknown colour {colour} in row {row}, column {column} (pixels of unknown colours: '
                     f'{sum(unknown.values())}). {advice}')


def _count(image, known=()):
    """{colour: number of pixels} of an image in RGB, without the known colours; the most frequent first."""
    colours = sorted(image.getcolors(image.width * image.height), reverse=True)
    return {colour: count for count, colour in colours if colour not in known}


def _advice(colours, unknown, classes):
    """What to do about the unknown ones among the colours of a label."""
    without_file = classes.is_road
    values = {value for colour in colours for value in colour}
    is_grey = all(len(set(colour)) == 1 for colour in colours)
    if without_file and is_grey and (values <= {0, 1} or values <= {0, 255} or len(values) > MANY):
        mask = [dict(name='background', grey=0),
                dict(name='road', grey=1 if values <= {0, 1} else 255, colour=ROAD_PAINT)]
        return f'This is a mask. Save the following as FILE and train with --classes FILE: {json.dumps(mask)}'
    nearest = min(classes.colours, key=lambda known: _distance(known, unknown[0]))
    between = min(_distance(*pair) for pair in itertools.combinations(classes.colours, 2))
    nearly = 4 * _distance(nearest, unknown[0]) <= between and values != {0, 1} and not (without_file and is_grey)
    if len(unknown) > MANY or nearly:
        return (f'The nearest known colour is {nearest}, {classes.colours[nearest]}: smoothing and JPEG leave such '
                'colours. Export labels as PNG without smoothing, or see "Colours that are nearly right" in '
                'docs/guide.md')
    entries = json.dumps([dict(name=f'grey {colour[0]}', grey=colour[0]) if is_grey else
                          dict(name='colour {} {} {}'.format(*colour), colour=colour)
                          for colour in sorted(colours if without_file else unknown)])
    if without_file:
        known = ', '.join(f'{name} {colour}' for colour, name in classes.colours.items())
        return (f'Without --classes a label has the colours {known}. Correct it, or save the following, with names of '
                f'your choice, as FILE and train with --classes FILE: {entries}')
    return f'Correct it, or train with a --classes FILE that also holds {entries[1:-1]}'


def _distance(colour, other):
    return max(abs(one - another) for one, another in zip(colour, other))
