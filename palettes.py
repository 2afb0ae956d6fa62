"""What a network tells apart: the classes, their colours in labels and overlays, and how they are scored.

As published these are background and road, PUBLISHED; a Palette is read from a file.
"""
import json

import numpy as np
from PIL import Image

import metrics
from safety import UserError, reason

BACKGROUND = (255, 0, 0)  # the colours of KITTI's labels, red green blue
ROAD = (255, 0, 255)
DOES_NOT_COUNT = (0, 0, 0)

ROAD_PAINT = (0, 255, 0)
PAINT_ALPHA = 127

LARGEST = 256  # classes of a palette
SCORES = ('mean IoU', 'accuracy')  # columns of the table that also has one for each class


class Palette:
    """Any classes; each pixel of an overlay is painted with the colour of its most probable class.

    classes: [(name, colour, counts)]: the colour (red, green, blue) stands for the class in labels; where counts is
    false, its pixels are neither trained on nor scored.

    names: of the classes that count, in the order of the network's channels; len() is their number.
    colours: of all, by which labels are read.

    A `probability` is, below, what probability() makes of the network's output: here it is float32 [..., classes].
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
        """A label's colours, uint8 [height, width, 3], as bool [height, width, classes]; all False does not count."""
        return np.stack([is_colour(label, colour) for colour in self._counting], axis=-1)

    def probability(self, softmax):
        """What matters of the softmax, an array or tensor float32 [pixels, classes]."""
        return softmax

    def scores(self):
        """Scores to which nothing has been added."""
        return metrics.ClassScores(self.names)

    def draw(self, probability):
        """The probability as a picture, uint8 [height, width, 3] or [height, width]."""
        return self._counting[np.argmax(probability, axis=-1)]

    mask = draw

    def paint(self, picture, probability):
        """The overlay on a picture, uint8 [height, width, 3]."""
        return np.asarray(Image.blend(Image.fromarray(picture), Image.fromarray(self.draw(probability)),
                                      PAINT_ALPHA / 255))


class Road(Palette):
    """Background and road, in KITTI's colours; road is painted green.

    A `probability` is that of road, float32 [...].
    """

    output = 'road_probability'

    def __init__(self):
        super().__init__([('background', BACKGROUND, True), ('road', ROAD, True),
                          ('what does not count', DOES_NOT_COUNT, False)])

    def probability(self, softmax):
        return softmax[:, 1]

    def scores(self):
        return metrics.RoadScores()

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


PUBLISHED = Road()


def is_colour(picture, colour):
    """Where a picture, uint8 [height, width, 3], has a colour: bool [height, width]."""
    # Channel by channel: np.all along an axis of three takes ten times as long.
    return np.logical_and.reduce([picture[..., channel] == value for channel, value in enumerate(colour)])


def read(path):
    """The Palette of a JSON file, a list of such objects: {"name": "sky", "colour": [70, 130, 180], "counts": true}.

    Raises UserError where it is none.
    """
    try:
        with open(path, encoding='utf-8') as file:
            classes = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError('{}: cannot be read as JSON ({}). Mend it, or name another file'.format(
            path, reason(error)))
    if not isinstance(classes, list) or not 2 <= len(classes) <= LARGEST:
        raise _no_palette(path, 'not a list of 2 to {} classes'.format(LARGEST))
    classes = [_read_class(path, number, entry) for number, entry in enumerate(classes, start=1)]
    for title, values in (('name', [name for name, _, _ in classes]), ('colour', [colour for _, colour, _ in classes])):
        for value in values:
            if values.count(value) > 1:
                raise _no_palette(path, 'two classes have the {} {}'.format(title, value))
    if sum(counts for _, _, counts in classes) < 2:
        raise _no_palette(path, 'fewer than two of its classes count')
    return Palette(classes)


def _read_class(path, number, entry):
    if not isinstance(entry, dict) or not {'name', 'colour'} <= set(entry) <= {'name', 'colour', 'counts'}:
        raise _no_palette(path, 'class {} is not an object of "name", "colour" and, if it is false, "counts"'.format(
            number))
    name, colour, counts = entry['name'], entry['colour'], entry.get('counts', True)
    if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable():
        raise _no_palette(path, 'the name of class {} is not a line of text'.format(number))
    if name in SCORES:
        raise _no_palette(path, '{} is the name of a score'.format(name))
    if not (isinstance(colour, list) and len(colour) == 3 and
            all(type(value) is int and 0 <= value <= 255 for value in colour)):
        raise _no_palette(path, 'the colour of {} is not [red, green, blue], each from 0 to 255'.format(name))
    if not isinstance(counts, bool):
        raise _no_palette(path, '"counts" of {} is neither true nor false'.format(name))
    return name, tuple(colour), counts


def _no_palette(path, problem):
    return UserError('{}: no palette: {}. For an example see demo-classes.json'.format(path, problem))
