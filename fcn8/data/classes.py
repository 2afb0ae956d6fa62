"""The classes that a network distinguishes, and their colours and grey values in labels and overlays.

As published these are background and road, KITTI_ROAD; --classes reads others from a file.
"""
import json

import numpy as np
from PIL import Image

from fcn8.errors import UserError, reason

BACKGROUND = (255, 0, 0)  # the colours of KITTI's labels, red green blue
ROAD = (255, 0, 255)
IGNORED = (0, 0, 0)

ROAD_PAINT = (0, 255, 0)
PAINT_ALPHA = 127

MAX_CLASSES = 256
UNPAINTED = 'background'  # the class that overlays leave as it is
SCORES = ('mean IoU', 'accuracy')  # columns of the table of scores, beside one for each class


def marks_of(entry):
    """The colours (red, green, blue) that mark a class of a description in labels: its own, and its grey value's."""
    marks = {tuple(entry['colour'])} if 'colour' in entry else set()
    return marks | {(entry['grey'],) * 3} if 'grey' in entry else marks


def voc_colour(value):
    """The colour (red, green, blue) of a value from 0 to 255 in Pascal VOC's palette: neighbours differ widely."""
    return tuple(sum((value >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3))


class Classes:
    """Any classes; each pixel of an overlay has the colour of its most probable class, unless that is UNPAINTED.

    description: [{'name', 'counts', and 'colour', 'grey' or both}]: the colour [red, green, blue] and the grey value
    mark the class in labels; where counts is false, its pixels are ignored in training and scores. Without a colour, a
    class is painted in that of its grey value in Pascal VOC's palette.

    names: of the classes that count, in the order of the network's channels; len() is their number.
    colours, greys: {(red, green, blue): name} of all that mark a class, and of the grey values among them.

    A prediction is what the methods below draw: here the most probable class of each pixel, uint8 [height, width].
    """

    is_road = False  # whether a prediction is the probability of road
    output = 'class_probabilities'  # of the exported model

    def __init__(self, description):
        self.description = description
        self.colours = {mark: entry['name'] for entry in description for mark in marks_of(entry)}
        self.greys = {(entry['grey'],) * 3: entry['name'] for entry in description if 'grey' in entry}
        counting = [entry for entry in description if entry['counts']]
        self.names = [entry['name'] for entry in counting]
        self._marks = [marks_of(entry) for entry in counting]
        self._painted = np.array([name != UNPAINTED for name in self.names])
        self._paints = np.array([entry.get('colour') or voc_colour(entry['grey']) for entry in counting], np.uint8)

    def __len__(self):
        return len(self.names)

    def one_hot(self, label):
        """A label's colours, uint8 [height, width, 3], as bool [height, width, classes]; all False is ignored."""
        return np.stack([np.logical_or.reduce([is_colour(label, mark) for mark in marks]) for marks in self._marks],
                        axis=-1)

    def draw(self, prediction):
        """The prediction as a picture, uint8 [height, width, 3] or [height, width]."""
        return self._paints[prediction]

    mask = draw

    def paint(self, picture, prediction):
        """The overlay of a picture, uint8 [height, width, 3]."""
        image = Image.fromarray(picture)
        image.paste(Image.fromarray(self.draw(prediction)),
                    mask=Image.fromarray(self._painted[prediction].astype(np.uint8) * PAINT_ALPHA))
        return np.asarray(image)


class Road(Classes):
    """Background and road, in KITTI's colours; road is painted green.

    A prediction is the probability of road, float32 [height, width].
    """

    is_road = True
    output = 'road_probability'

    def __init__(self):
        super().__init__([dict(name=name, colour=list(colour), counts=name != 'ignored') for name, colour in (
            ('background', BACKGROUND), ('road', ROAD), ('ignored', IGNORED))])

    def draw(self, prediction):
        return np.rint(prediction * 255).astype(np.uint8)

    def mask(self, prediction):
        """The road as a picture, white on black: where its probability exceeds 0.5."""
        return (prediction > 0.5).astype(np.uint8) * 255

    def paint(self, picture, prediction):
        """The picture, uint8 [height, width, 3], half green where the road's probability exceeds 0.5."""
        image = Image.fromarray(picture)
        image.paste(ROAD_PAINT, mask=Image.fromarray((prediction > 0.5).astype(np.uint8) * PAINT_ALPHA))
        return np.asarray(image)


KITTI_ROAD = Road()


def is_colour(picture, colour):
    """Where a picture, uint8 [height, width, 3], has a colour: bool [height, width]."""
    # Channel by channel: np.all along an axis of three takes ten times as long.
    return np.logical_and.reduce([picture[..., channel] == value for channel, value in enumerate(colour)])


def read_classes(path):
    """The Classes of a JSON file, a list of such objects: {"name": "sky", "colour": [70, 130, 180], "counts": true}.

    Beside "colour", or in its place, there may be the value in grey labels, "grey": 23.

    path: None stands for KITTI_ROAD.

    Raises UserError if the file does not hold classes.
    """
    if path is None:
        return KITTI_ROAD
    try:
        with open(path, encoding='utf-8') as file:
            classes = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path}: cannot be read as JSON ({reason(error)}). Correct it, or name another '
                        'file') from error
    if not isinstance(classes, list) or not 2 <= len(classes) <= MAX_CLASSES:
        raise _invalid(path, f'it is not a list of 2 to {MAX_CLASSES} classes')
    classes = [_read_class(path, number, entry) for number, entry in enumerate(classes, start=1)]
    for title, values in (('name', [entry['name'] for entry in classes]),
                          ('colour', [mark for entry in classes for mark in marks_of(entry)])):
        for value in values:
            if values.count(value) > 1:
                raise _invalid(path, f'two classes have the {title} {value}')
    if sum(entry['counts'] for entry in classes) < 2:
        raise _invalid(path, 'fewer than two of its classes count')
    return Classes(classes)


def _read_class(path, number, entry):
    if (not isinstance(entry, dict) or not {'name'} < set(entry) <= {'name', 'colour', 'grey', 'counts'} or
            not {'colour', 'grey'} & set(entry)):
        raise _invalid(path, f'class {number} is not an object with "name", with "colour", "grey" or both, and, if '
                             'its pixels are to be ignored, "counts": false')
    entry = dict(entry, counts=entry.get('counts', True))
    name, colour, grey = entry['name'], entry.get('colour', [0, 0, 0]), entry.get('grey', 0)
    if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable():
        raise _invalid(path, f'the name of class {number} is not a line of text')
    if name in SCORES:
        raise _invalid(path, f'{name} is the name of a score')
    if not (isinstance(colour, list) and len(colour) == 3 and
            all(_is_byte(value) for value in colour)):
        raise _invalid(path, f'the colour of {name} is not [red, green, blue], each from 0 to 255')
    if not _is_byte(grey):
        raise _invalid(path, f'"grey" of {name} is not a whole number from 0 to 255')
    if not isinstance(entry['counts'], bool):
        raise _invalid(path, f'"counts" of {name} is neither true nor false')
    return entry


def _is_byte(value):
    return type(value) is int and 0 <= value <= 255


def _invalid(path, problem):
    return UserError(f'{path}: not a file of classes: {problem}. docs/guide.md has an example')
