"""The features of a frozen encoder: computed once for each picture, kept in a file, mapped into memory."""
import contextlib
import glob
import hashlib
import os

import numpy as np

from fcn8 import device, distributed, progress
from fcn8.data import images, kitti, vgg16
from fcn8.errors import cannot_write
from fcn8.files import check_space, scratch_folder, update_with_file
from fcn8.tf1 import tf


def compute(settings, batches, precision, load_vgg):
    """The outputs of VGG-16's layers 3, 4 and 7 for each training picture, without dropout.

    They are computed unless the file of an earlier run has them: data_dir/features-<precision>-<digest>.npy. All
    processes compute, and one on each machine writes.

    settings: settings.Settings.
    batches: data.kitti.Batches of the pictures.
    precision: device.choose_precision().
    load_vgg: main.load_vgg.

    Returns a tuple of arrays float32 [pictures, ...], mapped into memory: only what is asked for is read.

    Raises UserError if they cannot be written, and if VGG-16 has variables with names of the decoder.
    """
    vgg16.check_names(settings.vgg_path)
    pictures = [picture for picture, _ in batches.pairs]
    model = sorted(path for path in glob.glob(os.path.join(glob.escape(settings.vgg_path), '**'), recursive=True)
                   if os.path.isfile(path))
    pattern = os.path.join('{}', f'features-{precision}-{{}}.npy')
    # The code that reads and resizes the pictures is part of the digest, too.
    digest = _digest([images.__file__, kitti.__file__] + model + pictures, str(settings.image_shape))
    path = pattern.format(settings.data_dir, digest)
    if not all(distributed.gather(_map(path, len(pictures)) is not None)):
        print(f'Computing the features of {len(pictures)} pictures; later runs reuse them')
        with contextlib.closing(_compute(settings, pictures, precision, load_vgg)) as feature_batches:
            if distributed.is_first_on_machine():
                _write(path, len(pictures), feature_batches)
                _remove_others(path, pattern.format(glob.escape(settings.data_dir), '[0-9a-f]' * 32))
            else:
                for _ in feature_batches:
                    pass
        distributed.gather(None)  # until then it need not be there
    rows = _map(path, len(pictures))
    return tuple(np.asarray(rows[name]) for name in rows.dtype.names)


def _compute(settings, pictures, precision, load_vgg):
    """Yield the features of the pictures, in order, batch by batch."""
    with tf.Graph().as_default(), tf.Session(config=device.session_config(precision)) as sess:
        input_image, keep_prob, *layers = load_vgg(sess, settings.vgg_path, settings.image_shape)
        share = distributed.rank(), distributed.size()
        for batch in kitti.read_batches(pictures, settings.image_shape, share):
            fed = batch if len(batch) else np.zeros((1,) + batch.shape[1:])  # TensorFlow 2 takes no empty batch
            features = sess.run(layers, {input_image: fed, keep_prob: 1.0})
            yield from distributed.gather([rows[:len(batch)] for rows in features])


def _remove_others(path, pattern):
    for other in glob.glob(pattern):
        if other != path:
            with contextlib.suppress(OSError):  # another run was faster
                os.remove(other)


def _map(path, count):
    """The rows in a file, None if it is not there, or not what _write() has written."""
    with contextlib.suppress(Exception):  # what numpy raises depends on where the damage is
        rows = np.lib.format.open_memmap(path, mode='r')
        if rows.shape == (count,) and rows.dtype.names:
            return rows
    return None


def _digest(paths, settings):
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for path in progress.bar(paths, desc='Check features', unit='file', leave=False):
        digest.update(update_with_file(hashlib.blake2b(), path).digest())
    return digest.hexdigest()


def _write(path, count, batches):
    """Write the batches as one array with a row for each picture, whole or not at all."""
    try:
        with scratch_folder(os.path.dirname(path)) as scratch:
            part = os.path.join(scratch, 'features.npy')
            # Not through a memory map, which would end the program where the disk is full.
            with open(part, 'wb') as file, progress.bar(desc='Features', total=count, unit='picture') as bar:
                for arrays in batches:
                    row = np.dtype([('', array.dtype, array.shape[1:]) for array in arrays])
                    if not file.tell():
                        check_space(os.path.dirname(path), count * row.itemsize, 'the features need')
                        np.lib.format.write_array_header_1_0(
                            file, {'descr': row.descr, 'fortran_order': False, 'shape': (count,)})
                    rows = np.empty(len(arrays[0]), row)
                    for name, array in zip(row.names, arrays):
                        rows[name] = array
                    file.write(rows.tobytes())
                    bar.update(len(rows))
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error) from error
