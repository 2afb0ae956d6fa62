"""Pictures from disk and to disk: PNG and JPEG, checked, upright, in threads."""
import collections
import concurrent.futures
import contextlib
import glob
import os
import re
import shlex
import stat
import warnings

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageOps

from fcn8 import progress
from fcn8.errors import UserError
from fcn8.files import stem, written_whole

EXIF_ORIENTATION = 0x0112
MIN_SIDE = 32  # pixels: one of the network's last layer
CHECKED = 300  # pictures of a folder, at most, that are read before the first step: all of KITTI's
PNG_END, JPEG_END = b'\0\0\0\0IEND\xaeB`\x82', b'\xff\xd9'
# To PNG, upright; in Python, since not everybody has ImageMagick. A copy, as Pillow turns a TIFF when it reads it.
CONVERT = ('python -c "import sys; from PIL import Image, ImageOps; [ImageOps.exif_transpose(Image.open(path).copy())'
           ".save(path.rpartition('.')[0] + '.png') for path in sys.argv[1:]]\"")
THREADS = min(os.cpu_count() or 1, 8)  # that read and write pictures while the network computes

# Pillow warns of a picture with more pixels than it considers safe; here it is refused.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


def list_pictures(folder):
    """The paths of the PNG and JPEG pictures in a folder, sorted.

    Raises UserError if there are none, if there is one in another format, and if two differ in their extension only.
    """
    paths = list_files(folder, r'\.(png|jpe?g)$')
    converted = set(map(stem, paths))
    refuse_other_formats([path for path in list_files(folder, '') if stem(path) not in converted])
    if not paths:
        raise UserError(f'{folder}: no ' + (
            'PNG or JPEG pictures. Add some, or name another folder' if os.path.isdir(folder) else
            'such folder. Create it, or name another'))
    by_name = {}
    for path in paths:
        other = by_name.setdefault(stem(path), path)
        if other != path:
            raise UserError(f'{other} and {path}: two pictures with the same name; remove one')
    return paths


def refuse_other_formats(paths):
    """Raise UserError, with the command that converts them, if there are TIFF, BMP or WebP pictures among the paths."""
    for path in paths:
        name, extension = os.path.splitext(path)
        if re.fullmatch(r'\.(tiff?|bmp|webp)', extension, re.IGNORECASE):
            pattern = os.path.join(shlex.quote(os.path.dirname(path) or '.'), '*' + extension)
            raise UserError(f'{path}: pictures are PNG or JPEG, labels PNG. Convert them with: {CONVERT} {pattern}')


def list_files(folder, pattern):
    """The paths of the files in `folder` whose names match the regular expression, ignoring case; sorted."""
    return sorted(path for path in glob.glob(os.path.join(glob.escape(folder), '*'))
                  if re.search(pattern, os.path.basename(path), re.IGNORECASE))


def check_pictures(paths):
    """Check the size and end of all pictures, and read some; raises UserError if one is damaged or not a picture."""
    def load(path):
        with opened(path) as image:
            image.load()

    run_all(size_of, paths, 'Check sizes')
    run_all(load, [paths[index] for index in sample(len(paths))], 'Check pictures')


def sample(count):
    """The indices of those of `count` pictures that are read before the first step: evenly spread, first to last."""
    return np.unique(np.linspace(0, count - 1, min(count, CHECKED)).astype(int)).tolist()


def size_of(path):
    """The (width, height) of a picture, upright; raises UserError if it is cut off, or not a picture.

    That is a thousand times as fast as reading it.
    """
    with opened(path) as image, open(path, 'rb') as file:
        file.seek(-min(os.path.getsize(path), len(PNG_END)), os.SEEK_END)
        if not file.read().endswith(PNG_END if image.format == 'PNG' else JPEG_END):
            image.load()  # something may follow the picture
        turned = image.format != 'PNG' and image.getexif().get(EXIF_ORIENTATION) in (5, 6, 7, 8)
        return image.size[::-1 if turned else 1]


@contextlib.contextmanager
def opened(path):
    """Yield a picture as a PIL.Image that is not read yet; raises UserError if that, or what follows, fails."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise ValueError('not a file')
        # No other formats: for some, Pillow starts other programs. A JPEG with more than one frame opens as MPO.
        with Image.open(path, formats=('PNG', 'JPEG')) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise UserError('{}: {}x{} pixels, so many that it could be a decompression bomb: at most {:,} are '
                                'allowed. Make it smaller, or remove it'.format(
                                    path, *image.size, Image.MAX_IMAGE_PIXELS))
            if min(image.size) < MIN_SIDE:
                raise UserError('{}: {}x{} pixels are too few: at least {} are needed in width and height. Enlarge or '
                                'remove it'.format(path, *image.size, MIN_SIDE))
            yield image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # what Pillow raises depends on where in the file the damage is
        raise UserError('{}: cannot be read as a picture ({}). Repair or remove it'.format(
            path, getattr(error, 'strerror', None) or error)) from error


def read_picture(path, image_shape=None):
    """The picture as uint8 [height, width, 3], red green blue, resized to image_shape (height, width), if any."""
    with opened(path) as image:
        if image.format != 'PNG':
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith('I'):  # 16-bit grey: Pillow's own conversion would clip the bright part
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert('RGB')
    return resize(image, image_shape) if image_shape else np.asarray(image)


def resize(picture, shape):
    """A picture, uint8 [height, width, 3] or a PIL.Image, resized bilinearly to a shape (height, width)."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return np.asarray(image.resize(shape[::-1], Image.BILINEAR))


def write_picture(path, picture):
    """Write a picture, uint8 [height, width, 3] or [height, width], as a PNG, whole or not at all.

    Raises UserError if it cannot be written.
    """
    with written_whole(path) as file:
        # In memory first, since imageio reports a full disk a second time. The level takes a quarter of the time of the
        # default, for a tenth more bytes.
        file.write(imageio.imwrite('<bytes>', picture, format='png', compress_level=1))


def write_pictures(pictures, total):
    """Write (path, picture) pairs in threads, while the next ones are computed; the pictures are write_picture()'s.

    total: how many they are, for the progress bar.
    """
    for _ in progress.bar(in_order(lambda pair: write_picture(*pair), pictures), desc='Paint', total=total,
                          unit='file'):
        pass


def in_order(function, items, threads=None):
    """Yield function(item) for each item, in order, while threads work on the next ones; raises what they raise."""
    threads = threads or THREADS
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending = collections.deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def run_all(function, items, title):
    """Call function(item) for each item, in threads, with a progress bar; raises what they raise."""
    for _ in progress.bar(in_order(function, items), desc=title, total=len(items), unit='file', leave=False):
        pass
