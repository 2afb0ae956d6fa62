"""Web pages in one file each, which needs nothing else, made from the templates beside this file."""
import base64
import bisect
import os

import imageio.v2 as imageio
import jinja2
import numpy as np
from PIL import Image

from fcn8.files import written_whole

MAX_PICTURES, MAX_BYTES = 1000, 100e6  # of a gallery, at most; the worst are kept. Of KITTI all are.
MAX_SIDE = 1280  # pixels: KITTI's pictures are a little narrower
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'templates')),
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)


def _number(value, sign=''):
    """A score or a cross entropy as text: a long training ends at less than four decimals show."""
    return '-' if value is None else format(value, sign + ('.3g' if 0 < abs(value) < 0.001 else '.4f'))


TEMPLATES.filters['number'] = _number


class Gallery:
    """Pictures for a page, the worst first, in the order in which they came where there are no scores.

    title: of its section on the page, if it has one.

    count: of all pictures that were added.
    """

    def __init__(self, title=''):
        self.title, self.count = title, 0
        self._kept, self._bytes = [], 0  # [(score, number, bytes, picture)], sorted

    def add(self, picture, score=None):
        """Add a picture, made by encode()."""
        picture = dict(picture, score=score)
        size = sum(len(view['url']) for view in picture['views'].values())
        self.count += 1
        self._bytes += size
        bisect.insort(self._kept, (2 if score is None else score, self.count, size, picture))
        while len(self._kept) > MAX_PICTURES or self._bytes > MAX_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.pop()[2]

    @property
    def pictures(self):
        """What the template needs to know of the pictures that are kept."""
        return [picture for *_, picture in self._kept]


def encode(name, category, views):
    """A picture for a Gallery.

    views: {title of a word: uint8 [height, width, 3] or [height, width]}; the first one is shown at first.
    """
    views = {title: shrunk(picture) for title, picture in views.items()}
    return dict(name=name, category=category, views={
        title: dict(url=data_url(picture), width=picture.shape[1], height=picture.shape[0])
        for title, picture in views.items()})


def write(path, template, **values):
    """Write a page, whole or not at all; returns its path.

    Raises UserError if it cannot be written.
    """
    text = TEMPLATES.get_template(template).render(values)
    with written_whole(path) as file:
        file.write(text.encode('utf-8', 'replace'))
    return path


def is_one(path):
    """Whether a file is such a page."""
    with open(path, 'rb') as file:
        return b'<meta name="generator" content="FCN-8">' in file.read(1000)


def data_url(picture):
    """A picture, uint8 [height, width, 3] or [height, width], as the address of a JPEG that is part of the page."""
    return 'data:image/jpeg;base64,' + base64.b64encode(imageio.imwrite('<bytes>', picture, format='jpg')).decode()


def shrunk(picture, side=MAX_SIDE):
    """A picture, uint8 [height, width, 3] or [height, width], with sides of that many pixels at most."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    return np.asarray(image)
