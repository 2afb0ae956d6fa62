"""Pictures in, pictures out: fetches VGG-16 and KITTI, makes batches, writes the overlays."""
import collections
import concurrent.futures
import contextlib
import errno
import functools
import glob
import http.client
import os
import re
import shutil
import stat
import time
import urllib.error
import urllib.request
import warnings
import zipfile

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

import augment
import palettes
import vgg16
from safety import UserError, check_space, scratch_folder, written_whole
from tf1 import tf

VGG_URL = 'https://s3-us-west-1.amazonaws.com/udacity-selfdrivingcar/vgg.zip'
KERAS_URL = ('https://storage.googleapis.com/tensorflow/keras-applications/vgg16/'
             'vgg16_weights_tf_dim_ordering_tf_kernels.h5')
KITTI_URL = 'https://s3.eu-central-1.amazonaws.com/avg-kitti/data_road.zip'
DOWNLOAD_TRIES = 3

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
UNPACKED_MB = 4096  # that an archive may have: several times what those of VGG-16 and KITTI have

EXIF_ORIENTATION = 0x0112
SMALLEST = 32  # pixels in height and width of a picture: one of the last layer

CHECKED = 300  # pictures of a folder, at most, that are read before the first step: all of KITTI's
PNG_END, JPEG_END = b'\0\0\0\0IEND\xaeB`\x82', b'\xff\xd9'

THREADS = min(os.cpu_count() or 1, 8)  # that read and write pictures while the network computes
CACHE_MB = 1024  # of resized pictures and labels that stay in memory: 2300 of KITTI's
INFERENCE_BATCH = 8  # pictures that go through the network at once


# Pillow warns of a picture of more pixels than it takes for sound; here it is refused.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


# Fetching


def maybe_download_pretrained_vgg(data_dir):
    """Put the pre-trained VGG-16 to data_dir/vgg, unless a usable model is there.

    The published archive is fetched; where that fails, the model is built from Keras's ImageNet weights.

    Raises UserError where both fail, and where data_dir/vgg holds something else.
    """
    vgg_path = os.path.join(data_dir, 'vgg')
    parts = ('saved_model.pb', 'variables/variables.index', 'variables/variables.data-00000-of-00001')
    if not _to_be_fetched(vgg_path, parts):
        return
    try:
        _fetch_archive(VGG_URL, data_dir, 'vgg')
    except (OSError, http.client.HTTPException, zipfile.BadZipFile) as error:
        print('{}: {}. Building VGG-16 from the ImageNet weights of Keras instead.'.format(VGG_URL, error))
        weights_file = os.path.join(data_dir, 'vgg16_weights.h5')
        try:
            _download(KERAS_URL, weights_file)
            vgg16.write_from_keras(vgg_path, weights_file)
        except (OSError, http.client.HTTPException, ValueError) as second_error:
            _remove(weights_file)
            raise UserError(
                'VGG-16 cannot be had from {} ({}), nor from {} ({}). Unpack vgg.zip to {} by hand, or try '
                '`python main.py --demo`, which needs neither'.format(
                    VGG_URL, error, KERAS_URL, second_error, vgg_path))
        _remove(weights_file)
        _remove(os.path.join(data_dir, 'vgg.zip.part'))  # of the archive, which is not needed any more


def maybe_download_kitti_road(data_dir):
    """Put the KITTI road set to data_dir/data_road, unless it is there.

    Raises UserError where it cannot be had, and where data_dir/data_road holds something else.
    """
    data_road = os.path.join(data_dir, 'data_road')
    if not _to_be_fetched(data_road, ('training/image_2', 'training/gt_image_2', 'testing/image_2')):
        return
    print('KITTI road set of www.cvlibs.net/datasets/kitti, licence CC BY-NC-SA 3.0: not for commercial use')
    try:
        _fetch_archive(KITTI_URL, data_dir, 'data_road')
    except (OSError, http.client.HTTPException, zipfile.BadZipFile) as error:
        raise UserError(
            'the KITTI road set cannot be had from {} ({}). Unpack data_road.zip of www.cvlibs.net/datasets/kitti to '
            '{} by hand, or try `python main.py --demo`, which needs no data'.format(KITTI_URL, error, data_road))


def _to_be_fetched(folder, parts):
    """False where `folder` has all its parts, True where it is missing or empty; no other folder is touched."""
    data_dir = os.path.dirname(folder)
    if not os.path.isdir(data_dir):
        raise UserError('{}: no such folder; make it, or name another with --data-dir'.format(data_dir))
    if not os.path.lexists(folder) or os.path.isdir(folder) and not os.listdir(folder):
        return True
    for part in parts:
        if not os.path.exists(os.path.join(folder, part)):
            raise UserError('{}: {} is missing. Complete the folder, or move it away, and the next start gets a new '
                            'one'.format(folder, part))
    return False


def _fetch_archive(url, data_dir, name):
    """Fetch the zip archive at `url` and put its folder `name` to data_dir/name, whole or not at all.

    Raises OSError, HTTPException or BadZipFile. What was fetched is kept for the next start, unless it is no such zip.
    """
    archive = os.path.join(data_dir, name + '.zip')
    if not os.path.exists(archive):
        _download(url, archive)
    try:
        with scratch_folder(data_dir) as scratch:
            _unpack(archive, scratch)
            if not os.path.isdir(os.path.join(scratch, name)):
                raise zipfile.BadZipFile('the archive holds no folder {}'.format(name))
            os.rename(os.path.join(scratch, name), os.path.join(data_dir, name))
    except zipfile.BadZipFile:
        os.remove(archive)
        raise
    os.remove(archive)


def _unpack(archive, folder):
    """Unpack the zip archive; raises BadZipFile where it is damaged, too large, or would write outside the folder."""
    try:
        with zipfile.ZipFile(archive) as file:
            inside = os.path.join(os.path.realpath(folder), '')
            for member in file.infolist():
                if not os.path.realpath(os.path.join(folder, member.filename)).startswith(inside):
                    raise zipfile.BadZipFile('the archive would write outside its folder: ' + member.filename)
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise zipfile.BadZipFile('the archive holds a link: {}'.format(member.filename))
            size = sum(member.file_size for member in file.infolist())
            if size > UNPACKED_MB * 1e6:
                raise zipfile.BadZipFile('the archive would unpack to {:,.0f} MB, more than the limit of {:,} '
                                         'MB'.format(size / 1e6, UNPACKED_MB))
            check_space(folder, size, 'the archive unpacks to')
            for member in tqdm(file.infolist(), desc='Unpack', unit='file', leave=False):
                file.extract(member, folder)
    except (zipfile.BadZipFile, UserError):
        raise
    except Exception as error:  # what comes of a damaged archive depends on where the damage is
        if getattr(error, 'errno', None) in CANNOT_WRITE:
            raise
        raise zipfile.BadZipFile(str(error))


def _download(url, path):
    """Fetch `url` to `path` through path + '.part', which this and later calls continue where a server cuts off."""
    part = path + '.part'
    for remaining in reversed(range(DOWNLOAD_TRIES)):
        total = _download_part(url, part)
        if total is None or os.path.getsize(part) == total:
            os.replace(part, path)
            return
        message = 'cut off after {:,} of {:,} bytes'.format(os.path.getsize(part), total)
        if os.path.getsize(part) > total:
            os.remove(part)
        if not remaining:
            raise OSError(message + '; the next start goes on from there')


def _download_part(url, part):
    """Fetch what is missing of `part`; returns the size of the whole in bytes, None where the server keeps it back."""
    # From the last byte that is there, not from the one behind it: of a complete file that would be an error.
    start = max(os.path.getsize(part) - 1, 0) if os.path.exists(part) else 0
    request = urllib.request.Request(url, headers={'Range': 'bytes={}-'.format(start)} if start else {})
    try:
        response = urllib.request.build_opener(_NoRedirectToHttp).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        if start and error.code == 416:  # the server's file is shorter than what is here
            os.remove(part)
        raise
    with response:
        if response.status != 206:
            start = 0
        total = start + response.length if response.length is not None else None
        check_space(os.path.dirname(part), response.length or 0, '{} has'.format(url))
        with open(part, 'r+b' if start else 'wb') as file:
            file.seek(start)
            with tqdm.wrapattr(file, 'write', total=total, initial=start, desc=os.path.basename(part)[:-5],
                               unit='B', unit_scale=True, unit_divisor=1024, miniters=1) as output:
                shutil.copyfileobj(response, output, 1 << 20)
    return total


class _NoRedirectToHttp(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, but not from https to anything else."""

    def redirect_request(self, request, file, code, message, headers, new_url):
        if request.type == 'https' and not new_url.lower().startswith('https:'):
            raise urllib.error.URLError('the server redirects to {}, which is not https'.format(new_url))
        return super().redirect_request(request, file, code, message, headers, new_url)


def _remove(path):
    if os.path.exists(path):
        os.remove(path)


# Reading


def list_pictures(data_folder, subfolder='image_2'):
    """The PNG and JPEG pictures of data_folder/image_2: their paths, sorted.

    Raises UserError where there is none, and where two have one name.
    """
    folder = os.path.join(data_folder, subfolder)
    paths = _list(folder, r'\.(png|jpe?g)$')
    if not paths:
        raise UserError('{}: no {}'.format(folder, 'PNG or JPEG pictures. Add some, or name another folder'
                                           if os.path.isdir(folder) else 'such folder. Make it, or name another'))
    for path, following in zip(paths, paths[1:]):
        if stem(path) == stem(following):
            raise UserError('{} and {}: two pictures of one name; remove one'.format(path, following))
    return paths


def check_pictures(paths):
    """Look at all the pictures, and read some; raises UserError where one is damaged or none."""
    def load(path):
        with _open(path) as image:
            image.load()

    _run_all(_look, paths, 'Look at pictures')
    _run_all(load, [paths[index] for index in _some(len(paths))], 'Check pictures')


def _run_all(function, items, title):
    for _ in tqdm(in_order(function, items), desc=title, total=len(items), unit='file', leave=False):
        pass


def _some(count):
    """The indices of those, of so many, that are read before the first step: evenly spread, from first to last."""
    return np.unique(np.linspace(0, count - 1, min(count, CHECKED)).astype(int)).tolist()


def _look(path):
    """The (width, height) of a picture, upright; raises UserError where it is none, or cut off.

    That is a thousand times as fast as reading it.
    """
    with _open(path) as image, open(path, 'rb') as file:
        file.seek(-min(os.path.getsize(path), len(PNG_END)), os.SEEK_END)
        if not file.read().endswith(PNG_END if image.format == 'PNG' else JPEG_END):
            image.load()  # something may follow the picture
        return image.size[::-1 if _is_turned(image) else 1]


def in_order(function, items, threads=None):
    """Yield function(item) of each item, in order, while threads work on the next ones; raises what they raise."""
    threads = threads or THREADS
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending = collections.deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _list(folder, pattern):
    """The paths of the files in `folder` whose names match the regular expression, in whatever case; sorted."""
    return sorted(path for path in glob.glob(os.path.join(glob.escape(folder), '*'))
                  if re.search(pattern, os.path.basename(path), re.IGNORECASE))


def stem(path):
    """The name of a file without its ending."""
    return os.path.splitext(os.path.basename(path))[0]


def pair_with_labels(data_folder):
    """The (picture, label) paths of a folder in KITTI's layout; each pair is of one size, and none is cut off."""
    label_folder = os.path.join(data_folder, 'gt_image_2')
    label_of = {'_'.join(stem(path).rsplit('_road_', 1)): path for path in _list(label_folder, r'_road_.*\.png$')}
    pairs = []
    for picture in list_pictures(data_folder):
        label = label_of.get(stem(picture))
        if label is None:
            category, underscore, number = stem(picture).rpartition('_')
            if not underscore:
                raise UserError('{}: a name of the form um_000003 is needed, whose label is um_road_000003.png'.format(
                    picture))
            raise UserError('{}: its label {}_road_{}.png is missing in {}. Add it, or remove this one'.format(
                picture, category, number, label_folder))
        pairs.append((picture, label))
    _run_all(_compare_sizes, pairs, 'Look at pictures')
    return pairs


def _compare_sizes(pair):
    size, label_size = map(_look, pair)
    if size != label_size:
        raise UserError('{}: the label has {}x{} pixels, its picture {}x{}. Make them one size'.format(
            pair[1], *(label_size + size)))


def _is_turned(image):
    """Whether a camera that was held upright has noted to turn the picture."""
    return image.format == 'JPEG' and image.getexif().get(EXIF_ORIENTATION) in (5, 6, 7, 8)


@contextlib.contextmanager
def _open(path):
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise ValueError('it is not a file')
        # No other formats: for some, Pillow starts other programs.
        with Image.open(path, formats=('PNG', 'JPEG')) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise ValueError('{}x{} pixels: it could be a decompression bomb'.format(*image.size))
            if min(image.size) < SMALLEST:
                raise UserError('{}: {}x{} pixels are too few: {} are needed in width and height. Enlarge or remove '
                                'it'.format(path, *(image.size + (SMALLEST,))))
            yield image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # what Pillow raises depends on where in the file the damage is
        raise UserError('{}: cannot be read as a picture ({}). Mend or remove it'.format(
            path, getattr(error, 'strerror', None) or error))


def read_picture(path, image_shape=None):
    """The picture as uint8 [height, width, 3], red green blue, resized to image_shape (height, width), if any."""
    with _open(path) as image:
        if image.format == 'JPEG':
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith('I'):  # 16-bit grey, of which Pillow's own conversion would clip the bright part
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert('RGB')
    return np.asarray(image.resize(image_shape[::-1], Image.BILINEAR) if image_shape else image)


def read_label(path, image_shape=None, palette=palettes.PUBLISHED):
    """The label as bool [height, width, classes], one-hot; all False where the pixel does not count.

    image_shape: (height, width) to which it is resized, if any.
    palette: the palettes.Palette whose colours it has.

    Raises UserError where it has another colour.
    """
    with _open(path) as image:
        image = image.convert('RGB')
    found = image.getcolors(len(palette.colours))  # None: there are more
    if not found or not {colour for _, colour in found} <= set(palette.colours):
        _refuse_colours(path, np.asarray(image), palette)
    if image_shape:
        image = image.resize(image_shape[::-1], Image.NEAREST)  # blends of two colours would be a third
    return palette.one_hot(np.asarray(image))


def _refuse_colours(path, label, palette):
    known = np.logical_or.reduce([palettes.is_colour(label, colour) for colour in palette.colours])
    row, column = np.argwhere(~known)[0]
    raise UserError('{}: the colour {} in row {}, column {}, and {} more such pixels: a label has only {}. Mend it, or '
                    'name its colours with --classes'.format(
        path, tuple(label[row, column].tolist()), row, column, np.count_nonzero(~known) - 1,
        ', '.join('{} {}'.format(name, colour) for colour, name in palette.colours.items())))


def read_batches(paths, image_shape, share=(0, 1)):
    """Yield the pictures, in order and in batches, uint8 [n, height, width, 3], resized to image_shape.

    share: (rank, size), where that many processes take turns. All get as many batches: the last may have no picture.
    """
    def read(start):
        pictures = [read_picture(path, image_shape) for path in paths[start:start + INFERENCE_BATCH]]
        return np.array(pictures, np.uint8).reshape((-1,) + tuple(image_shape) + (3,))

    step = INFERENCE_BATCH * share[1]
    return in_order(read, range(INFERENCE_BATCH * share[0], -(-len(paths) // step) * step, step))


def category(path):
    """The category of a picture: `um` of .../um_000003.png."""
    return stem(path).rpartition('_')[0]


def draw_validation(paths, fraction, seed):
    """Draw the pictures that are kept from the training: `fraction` of each category, rounded.

    Returns their indices, int [pictures], sorted.

    Raises UserError where a fraction above 0 is none of the pictures, or all of them.
    """
    random = np.random.RandomState(seed)
    categories = np.array([category(path) for path in paths])
    drawn = np.sort(np.concatenate([
        random.permutation(np.flatnonzero(categories == name))[:int(fraction * count + 0.5)]
        for name, count in zip(*np.unique(categories, return_counts=True))]))
    if fraction and not 0 < len(drawn) < len(paths):
        raise UserError('--validation {}: {} of the {} pictures, by category. Try another share, or more '
                        'pictures'.format(fraction, 'all' if len(drawn) else 'none', len(paths)))
    return drawn


def gen_batch_function(data_folder, image_shape, seed=None, cache_mb=CACHE_MB, validation=0., augmented=False,
                       palette=palettes.PUBLISHED, share=(0, 1)):
    """Make the function that gives batches of pictures and labels.

    data_folder: folder in KITTI's layout: image_2/um_000003.png with gt_image_2/um_road_000003.png.
    image_shape: (height, width) in pixels, to which pictures (bilinear) and labels (nearest neighbour) are resized.
    seed: fixes the order of the pictures, epoch after epoch, which of them are for validation, and the variants.
    cache_mb: MiB of resized pictures and labels that stay in memory; the others are read again in each epoch, by
    threads while the caller works with the batch before.
    validation: the share of the pictures that the batches leave out.
    augmented: whether each epoch has another variant of each picture, of augment.vary().
    palette: the palettes.Palette of the labels.
    share: (rank, size), where that many processes share the pictures of each epoch, all with the same seed: batch by
    batch, the processes together have what one would have with so many times the batch size. As the shares are equal,
    fewer pictures than there are processes may be left out, others in each epoch.

    Returns get_batches_fn, a Batches: get_batches_fn(batch_size) is an iterator over one epoch in a new order:
    (images, labels), images uint8 [n, height, width, 3], labels bool [n, height, width, classes], one-hot, as published
    (background, road), and all False where the pixel does not count. The last batch is as short as it comes.

    Raises UserError where pictures or labels are missing, unreadable, of different sizes or of strange colours, and
    where fewer than two classes are in the labels.
    """
    pairs = pair_with_labels(data_folder)
    validation_indices = draw_validation([picture for picture, _ in pairs], validation, seed)
    batches = Batches(pairs, image_shape, np.random.randint(2 ** 31) if seed is None else seed, cache_mb,
                      validation_indices, augmented, palette, share)
    if not batches.pictures:
        raise UserError('{}: {} pictures to train on are too few for {} processes. Start fewer'.format(
            data_folder, len(pairs) - len(validation_indices), share[1]))
    batches.read_some()
    _check_classes(batches, data_folder, palette)
    return batches


class Batches:
    """The batches of a folder: called with a batch size, it gives those of the next epoch.

    pictures: number of pictures of an epoch, of all shares.
    pairs: the (picture, label) paths of the folder.
    validation_pictures, validation_share: the paths of the pictures that are left out, and of this share of them.
    features: set to [arrays], a tuple of arrays with a row for each picture of the folder, in the order of
    list_pictures, it has the batches hold tuples of such rows in place of the images. Augmented batches need
    [arrays, arrays of the mirrored pictures]: mirroring is then all that is done.

    The other arguments are those of gen_batch_function.
    """

    def __init__(self, pairs, image_shape, seed, cache_mb, validation_indices, augmented, palette, share):
        self._image_shape, self._seed, self._augmented, self._palette = image_shape, seed, augmented, palette
        self._cache = {}
        self._cached_pairs = cache_mb * 2 ** 20 // (image_shape[0] * image_shape[1] * (3 + len(palette)))
        self._rank, self._size = share
        self._validation = validation_indices[self._rank::self._size]
        self._training = np.setdiff1d(np.arange(len(pairs)), validation_indices)
        self._random = np.random.RandomState(seed)
        self._epoch = self._skipped = 0  # the next epoch, and how many of its pictures are left out
        self.features = None
        self.pictures, self.pairs = len(self._training) // self._size * self._size, pairs
        self.validation_pictures = [pairs[index][0] for index in validation_indices]
        self.validation_share = [pairs[index][0] for index in self._validation]

    def __call__(self, batch_size):
        order = self._random.permutation(self._training)[self._skipped:self.pictures]
        order = order[:len(order) // self._size * self._size][self._rank::self._size]
        make = functools.partial(self._batch, epoch=self._epoch)
        self._epoch, self._skipped = self._epoch + 1, 0
        return self._in_order(make, order, batch_size)

    def skip(self, epochs, pictures):
        """Leave out so many epochs, and so many pictures of the one after them."""
        for _ in range(epochs):
            self._random.permutation(self._training)
        self._epoch, self._skipped = self._epoch + epochs, pictures

    def validation_batches(self):
        """An iterator over the batches of the share of pictures that are left out, in their order and as they are."""
        return self._in_order(self._batch, self._validation, INFERENCE_BATCH)

    def read_some(self):
        """Read some of all pictures and labels, so that errors come now."""
        _run_all(self._read, _some(len(self.pairs)), 'Read pictures')

    def training_labels(self):
        """Yield the labels to train on, of all shares."""
        return tqdm(in_order(self._read_label, self._training), desc='Look for classes', total=len(self._training),
                    unit='label', leave=False, delay=1)

    def _in_order(self, make, indices, batch_size):
        batches = [indices[start:start + batch_size] for start in range(0, len(indices), batch_size)]
        if self.features is not None:
            return in_order(make, batches, threads=1)  # more would not copy faster, but take more memory
        # What is in memory already is copied faster than a thread is asked for it.
        work = self._augmented or len(self._cache) < len(self.pairs)
        return (in_order if work else map)(make, batches)

    def _batch(self, indices, epoch=None):
        """The (images or rows of features, labels) at these indices: varied for an epoch, otherwise as they are."""
        varied = self._augmented and epoch is not None
        randoms = [np.random.RandomState((self._seed, epoch, index)) if varied else None for index in indices]
        if self.features is None:
            pairs = [augment.vary(*self._read(index), random) if varied else self._read(index)
                     for index, random in zip(indices, randoms)]
            return tuple(map(np.array, zip(*pairs)))
        labels = [self._read_label(index) for index in indices]
        if not self._augmented:
            return tuple(rows[indices] for rows in self.features[0]), np.array(labels)
        mirrored = [varied and augment.is_mirrored(random) for random in randoms]
        rows = [[array[index] for array in self.features[mirror]] for index, mirror in zip(indices, mirrored)]
        labels = [augment.mirror(label) if mirror else label for label, mirror in zip(labels, mirrored)]
        return tuple(map(np.array, zip(*rows))), np.array(labels)

    def _read(self, index):
        if index in self._cache:
            return self._cache[index]
        picture, label = self.pairs[index]
        pair = read_picture(picture, self._image_shape), read_label(label, self._image_shape, self._palette)
        if index < self._cached_pairs:
            self._cache[index] = pair
        return pair

    def _read_label(self, index):
        if index in self._cache:
            return self._cache[index][1]
        return read_label(self.pairs[index][1], self._image_shape, self._palette)


def _check_classes(batches, data_folder, palette):
    """Raises UserError unless two classes are in the labels to train on; it reads as many as that takes."""
    found = np.zeros(len(palette), bool)
    for label in batches.training_labels():
        found |= label.any(axis=(0, 1))
        if np.count_nonzero(found) > 1:
            return
    raise UserError('{}: the labels together need two classes at least, of {}'.format(
        os.path.join(data_folder, 'gt_image_2'), ', '.join(
            '{} {}'.format(name, colour) for colour, name in palette.colours.items() if name in palette.names)))


# Writing


def softmax_of(logits):
    """The softmax of logits (float32 [n, classes]), built by the first call and found by others.

    So inference adds nothing to a graph that is finished.
    """
    for operation in logits.consumers():
        if operation.type == 'Softmax':
            return operation.outputs[0]
    return tf.nn.softmax(logits)


def segment(sess, logits, keep_prob, image_pl, paths, image_shape, palette=palettes.PUBLISHED):
    """Tell the road, or the classes of another palette, of each picture.

    logits: float32 [n*h*w, classes], as published (background, road), computed from image_pl (float32 [n, h, w, 3])
    and keep_prob.
    image_shape: (height, width) in pixels.

    Yields (path, picture uint8 [height, width, 3], the palette's probability: of road float32 [height, width]).
    """
    softmax = softmax_of(logits)
    remaining = iter(paths)
    for pictures in read_batches(paths, image_shape):
        probabilities = palette.probability(sess.run(softmax, {image_pl: pictures, keep_prob: 1.0}))
        for picture, probability in zip(pictures, probabilities.reshape(pictures.shape[:-1] + probabilities.shape[1:])):
            yield next(remaining), picture, probability


def gen_test_output(sess, logits, keep_prob, image_pl, data_folder, image_shape, look=None, palette=palettes.PUBLISHED):
    """Paint the road green on each picture of data_folder/image_2, or the classes of another palette.

    look: called with what segment() yields of each picture.
    The other arguments are those of segment().

    Yields (file name, picture uint8 [height, width, 3]): half green where the road's probability exceeds 0.5, the
    resized picture itself elsewhere.
    """
    for path, picture, probability in segment(sess, logits, keep_prob, image_pl, list_pictures(data_folder),
                                              image_shape, palette):
        if look:
            look(path, picture, probability)
        yield os.path.basename(path), palette.paint(picture, probability)


def save_inference_samples(runs_dir, data_dir, sess, image_shape, logits, keep_prob, input_image,
                           output_dir=None, look=None, palette=palettes.PUBLISHED):
    """Write the painted test pictures of data_dir/data_road/testing as PNGs to output_dir.

    output_dir: a folder that is there; otherwise a new one is made, runs_dir/<time.time()>.
    The other arguments are those of gen_test_output.

    Returns the folder's path.

    Raises UserError where a picture cannot be written.
    """
    data_folder = os.path.join(data_dir, 'data_road', 'testing')
    if output_dir is None:
        output_dir = os.path.join(runs_dir, str(time.time()))
        os.makedirs(output_dir)
    pictures = gen_test_output(sess, logits, keep_prob, input_image, data_folder, image_shape, look, palette)
    write_pictures(((os.path.join(output_dir, stem(name) + '.png'), picture) for name, picture in pictures),
                   len(list_pictures(data_folder)))
    return output_dir


def write_pictures(pictures, total):
    """Write (path, picture) pairs, by threads, while the next ones are made; the pictures are those of write_picture().

    total: how many they are, for the progress bar.
    """
    for _ in tqdm(in_order(lambda pair: write_picture(*pair), pictures), desc='Paint', total=total, unit='file'):
        pass


def write_picture(path, picture):
    """Write a picture, uint8 [height, width, 3] or [height, width], as a PNG, whole or not at all.

    Raises UserError where it cannot be written.
    """
    with written_whole(path) as file:
        # In memory first, since imageio complains once more where a disk is full. The level takes a quarter of the
        # time of the default one, for a tenth more bytes.
        file.write(imageio.imwrite('<bytes>', picture, format='png', compress_level=1))
