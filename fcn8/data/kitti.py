"""The KITTI road set, and other folders in its layout: pictures paired with labels, in batches.

A folder has image_2/um_000003.png, whose label is gt_image_2/um_road_000003.png, or um_000003.png there; `um` is the
picture's category.
"""
import functools
import os

import numpy as np

from fcn8 import launcher, progress
from fcn8.data import augmentation, images
from fcn8.data.classes import KITTI_ROAD
from fcn8.data.labels import read_label
from fcn8.errors import UserError
from fcn8.files import stem
from fcn8.settings import Settings

INFERENCE_BATCH = 8  # pictures that go through the network at once


def list_pictures(data_folder):
    """The paths of the pictures of a folder in KITTI's layout, sorted; UserError if there are none."""
    return images.list_pictures(os.path.join(data_folder, 'image_2'))


def category(path):
    """The category of a picture: `um` of .../um_000003.png, `none` of .../street.png."""
    return stem(path).rpartition('_')[0] or 'none'


def pair_with_labels(data_folder):
    """The (picture, label) paths of a folder in KITTI's layout.

    Raises UserError if a picture has no label or two, if a pair differs in size, and if one of them is cut off.
    """
    label_folder = os.path.join(data_folder, 'gt_image_2')
    labels = images.list_files(label_folder, r'\.png$')
    pictures = list_pictures(data_folder)
    names, label_of, pairs = set(map(stem, pictures)), {}, []
    for path in labels:
        name = stem(path) if stem(path) in names else '_'.join(stem(path).rsplit('_road_', 1))
        other = label_of.setdefault(name, path)
        if other != path and name in names:
            raise UserError(f'{other} and {path}: two labels for one picture; remove one')
    for picture in pictures:
        label = label_of.get(stem(picture))
        if label is None:
            raise _missing_label(picture, label_folder)
        pairs.append((picture, label))
    images.run_all(_compare_sizes, pairs, 'Check sizes')
    return pairs


def _missing_label(picture, label_folder):
    names = [stem(picture)] + ['_road_'.join(stem(picture).rsplit('_', 1))] * ('_' in stem(picture))
    for path in [path for path in images.list_files(label_folder, r'\.(jpe?g|tiff?|bmp|webp)$') if stem(path) in names]:
        images.refuse_other_formats([path])
        return UserError(f'{path}: JPEG changes the colours of a label. Export it as PNG, or see "Colours that are '
                         'nearly right" in docs/guide.md')
    return UserError('{}: its label {} is missing in {}. Add it, or remove this picture'.format(
        picture, ' or '.join(name + '.png' for name in reversed(names)), label_folder))


def _compare_sizes(pair):
    size, label_size = map(images.size_of, pair)
    if size != label_size:
        raise UserError('{}: the label has {}x{} pixels, its picture {}x{}. Make them the same size'.format(
            pair[1], *label_size, *size))


def read_batches(paths, image_shape, share=(0, 1)):
    """Yield the pictures, in order and in batches, uint8 [n, height, width, 3], resized to image_shape.

    share: (rank, size) of the processes that take turns. All get as many batches: the last may have no picture.
    """
    def read(start):
        pictures = [images.read_picture(path, image_shape) for path in paths[start:start + INFERENCE_BATCH]]
        return np.array(pictures, np.uint8).reshape((-1,) + tuple(image_shape) + (3,))

    step = INFERENCE_BATCH * share[1]
    return images.in_order(read, range(INFERENCE_BATCH * share[0], -(-len(paths) // step) * step, step))


class Batches:
    """The function get_batches_fn of a folder in KITTI's layout, and all that is known about that folder.

    helper.gen_batch_function() describes its batches and its arguments, except classes, a data.classes.Classes.

    If several processes train together, each gets its own equal share of one order. What cannot be shared equally,
    fewer pictures than there are processes, is left out of an epoch, different ones each time.

    pairs: the (picture, label) paths of the folder.
    pictures: number of pictures of an epoch, in all processes.
    validation_pictures, validation_share: the paths of the pictures that are not trained on, and this process's share.
    image_shape, classes: as given.
    features: set to a tuple of arrays with a row for each of `pairs`, it makes the batches hold tuples of such rows
    instead of images.
    """

    def __init__(self, data_folder, image_shape, seed=None, cache_mb=Settings.cache_mb, validation=0., augment=False,
                 classes=KITTI_ROAD):
        self.image_shape, self.classes, self.pairs = tuple(image_shape), classes, pair_with_labels(data_folder)
        self._seed, self._augment = np.random.randint(2 ** 31) if seed is None else seed, augment
        self._cache, self.features = {}, None
        self._cached_pairs = cache_mb * 2 ** 20 // (image_shape[0] * image_shape[1] * (3 + len(classes)))
        chosen = choose_validation([picture for picture, _ in self.pairs], validation, seed)
        self._validation, self._training = chosen[launcher.RANK::launcher.SIZE], np.setdiff1d(
            np.arange(len(self.pairs)), chosen)
        self.validation_pictures = [self.pairs[index][0] for index in chosen]
        self.validation_share = [self.pairs[index][0] for index in self._validation]
        self.pictures = len(self._training) // launcher.SIZE * launcher.SIZE
        if not self.pictures:
            raise UserError(f'{data_folder}: {len(self._training)} pictures are too few for {launcher.SIZE} processes. '
                            'Start fewer')
        self._random = np.random.RandomState(self._seed)
        self._epoch = self._skipped = 0  # the next epoch, and how many of its pictures are left out
        images.run_all(self._read, images.sample(len(self.pairs)), 'Read pictures')  # so that errors show now
        self._check_classes(data_folder)

    def __call__(self, batch_size):
        order = self._random.permutation(self._training)[self._skipped:self.pictures]
        order = order[:len(order) // launcher.SIZE * launcher.SIZE][launcher.RANK::launcher.SIZE]
        make = functools.partial(self._batch, augment_in_epoch=self._epoch if self._augment else None)
        self._epoch, self._skipped = self._epoch + 1, 0
        return self._in_order(make, order, batch_size)

    def skip(self, epochs, pictures):
        """Leave out the given number of epochs, and of pictures of the epoch after them."""
        for _ in range(epochs):
            self._random.permutation(self._training)
        self._epoch, self._skipped = self._epoch + epochs, pictures

    def validation_batches(self):
        """An iterator over this process's share of the validation pictures, in their order, not augmented."""
        return self._in_order(self._batch, self._validation, INFERENCE_BATCH)

    def _in_order(self, make, indices, batch_size):
        batches = [indices[start:start + batch_size] for start in range(0, len(indices), batch_size)]
        if self.features is not None:
            return images.in_order(make, batches, threads=1)  # more would not copy faster, but take more memory
        # What is in memory already is copied faster than a thread is asked for it.
        work = self._augment or len(self._cache) < len(self.pairs)
        return (images.in_order if work else map)(make, batches)

    def _batch(self, indices, augment_in_epoch=None):
        """The (images or rows of features, labels) at these indices."""
        if self.features is not None:
            labels = np.array([self._read_label(index) for index in indices])
            return tuple(rows[indices] for rows in self.features), labels
        pairs = [self._read(index) for index in indices]
        if augment_in_epoch is not None:
            pairs = [augmentation.augment(*pair, np.random.RandomState((self._seed, augment_in_epoch, index)))
                     for pair, index in zip(pairs, indices)]
        return tuple(map(np.array, zip(*pairs)))

    def _read(self, index):
        if index in self._cache:
            return self._cache[index]
        picture, label = self.pairs[index]
        pair = images.read_picture(picture, self.image_shape), read_label(label, self.image_shape, self.classes)
        if index < self._cached_pairs:
            self._cache[index] = pair
        return pair

    def _read_label(self, index):
        if index in self._cache:
            return self._cache[index][1]
        return read_label(self.pairs[index][1], self.image_shape, self.classes)

    def _check_classes(self, data_folder):
        """Raises UserError unless two classes are in the training labels; it reads as many as that takes."""
        found = np.zeros(len(self.classes), bool)
        labels = images.in_order(self._read_label, self._training)
        for label in progress.bar(labels, desc='Check classes', total=len(self._training), unit='label', leave=False,
                                  delay=1):
            found |= label.any(axis=(0, 1))
            if np.count_nonzero(found) > 1:
                return
        raise UserError('{}: the labels show fewer than two of the classes {}: at least two are needed'.format(
            os.path.join(data_folder, 'gt_image_2'), ', '.join(
                f'{name} {colour}' for colour, name in self.classes.colours.items() if name in self.classes.names)))


def choose_validation(paths, share, seed):
    """Choose the pictures that are not trained on: that share of each category, rounded.

    Returns their indices, int [pictures], sorted.

    Raises UserError if a share above 0 means none of the pictures, or all of them.
    """
    random = np.random.RandomState(seed)
    categories = np.array([category(path) for path in paths])
    chosen = np.sort(np.concatenate([
        random.permutation(np.flatnonzero(categories == name))[:int(share * count + 0.5)]
        for name, count in zip(*np.unique(categories, return_counts=True))]))
    if share and not 0 < len(chosen) < len(paths):
        raise UserError('--validation {}: rounded in each category, this share leaves no picture {}. Try another '
                        'share, or more pictures'.format(share, 'to train on' if len(chosen) else 'for validation'))
    return chosen
