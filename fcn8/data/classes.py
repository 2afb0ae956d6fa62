"""The classes that a network distinguishes, and their colours in labels and overlays.

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
SCORES = ('mean IoU', 'accuracy')  # columns of the table of scores, beside one for each class


class Classes:
    """Any classes; each pixel of an overlay is painted in the colour of its most probable class.

    classes: [(name, colour, counts)]: the colour (red, green, blue) marks the class in labels; where counts is false,
    its pixels are ignored in training and scores.

    names: of the classes that count, in the order of the network's channels; len() is their number.
    colours: {colour: name} of all.

    `probability` below is what select() makes of the network's output: here float32 [..., classes].
    """

    output = 'class_probabilities'  # of the exported model

    def __init__(self, classes):
        self.description = [dict(name=name, colour=list(colour), counts=counts) for name, colour, counts in classes]
        self.colours = {tuple(colour): name for name, colour, _ in classes}
        counting = [(name, colour) for name, colour, counts in classes if counts]
        self.names = [name for name, _ in counting]
        self._counting = np.array([colour for _, colour in counting], np.uint8)

    def __len__(self):
        return len(self.names)

    def one_hot(self, label):
        """A label's colours, uint8 [height, width, 3], as bool [height, width, classes]; all False is ignored."""
        return np.stack([is_colour(label, colour) for colour in self._counting], axis=-1)

    def select(self, softmax):
        """The part of the softmax that is needed; an array or tensor, float32 [pixels, classes]."""
        return softmax

    def draw(self, probability):
        """The probability as a picture, uint8 [height, width, 3] or [height, width]."""
        return self._counting[np.argmax(probability, axis=-1)]

    mask = draw

    def paint(self, picture, probability):
        """The overlay of a picture, uint8 [height, width, 3]."""
        return np.asarray(Image.blend(Image.fromarray(picture), Image.fromarray(self.draw(probability)),
                                      PAINT_ALPHA / 255))


class Road(Classes):
    """Background and road, in KITTI's colours; road is painted green. `probability` is that of road, float32 [...]."""

    output = 'road_probability'

    def __init__(self):
        super().__init__([('background', BACKGROUND, True), ('road', ROAD, True), ('ignored', IGNORED, False)])

    def select(self, softmax):
        return softmax[:, 1]

    def draw(self, probability):
        return np.rint(probability * 255).astype(np.uint8)

    def mask(self, probability):
        """The road as a picture, white on black: where its probability exceeds 0.5."""
        return (probability > 0.5).astype(np.uint8) * 255

    def paint(self, picture, probability):
        """The picture, uint8 [height, width, 3], half green where the road's probability exceeds 0.5."""
        image = Image.fromarray(picture)
        image.paste(ROAD_PAINT, mask=Image.fromarray((probability > 0.5).astype(np.uint8) * PAINT_ALPHA))
        return np.asarray(image)


KITTI_ROAD = Road()


def is_colour(picture, colour):
    """Where a picture, uint8 [height, width, 3], has a colour: bool [height, width]."""
    # Channel by channel: np.all along an axis of three takes ten times as long.
    return np.logical_and.reduce([picture[..., channel] == value for channel, value in enumerate(colour)])


def read_classes(path):
    """The Classes of a JSON file, a list of such objects: {"name": "sky", "colour": [70, 130, 180], "counts": true}.

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
    for title, values in (('name', [name for name, _, _ in classes]), ('colour', [colour for _, colour, _ in classes])):
        for value in values:
            if values.count(value) > 1:
                raise _invalid(path, f'two classes have the {title} {value}')
    if sum(counts for _, _, counts in classes) < 2:
        raise _invalid(path, 'fewer than two of its classes count')
    return Classes(classes)


def _read_class(path, number, entry):
    if not isinstance(entry, dict) or not {'name', 'colour'} <= set(entry) <= {'name', 'colour', 'counts'}:
        raise _invalid(path, f'class {number} is not an object with "name", "colour" and, to be ignored, '
                             '"counts": false')
    name, colour, counts = entry['name'], entry['colour'], entry.get('counts', True)
    if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable():
        raise _invalid(path, f'the name of class {number} is not a line of text')
    if name in SCORES:
        raise _invalid(path, f'{name} is the name of a score')
    if not (isinstance(colour, list) and len(colour) == 3 and
            all(type(value) is int and 0 <= value <= 255 for value in colour)):
        raise _invalid(path, f'the colour of {name} is not [red, green, blue], each from 0 to 255')
    if not isinstance(counts, bool):
        raise _invalid(path, f'"counts" of {name} is neither true nor false')
    return name, tuple(colour), counts


def _invalid(path, problem):
    return UserError(f'{path}: not a file of classes: {problem}. docs/guide.md has an example')
