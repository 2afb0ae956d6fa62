"""What a frozen encoder says of each picture: computed once, kept in a file, mapped into memory."""
import contextlib
import glob
import hashlib
import os

import numpy as np
from tqdm import tqdm

import safety


def compute_once(folder, name, depends_on, settings, count, compute, workers):
    """The features of all pictures; from the file of an earlier run where nothing has changed that they depend on.

    folder, name: they are kept in the file folder/features-<name>-<digest>.npy, which replaces others of that name.
    depends_on: paths of the files whose contents the features depend on, in a fixed order.
    settings: text of what else they depend on.
    count: number of pictures.
    compute: a generator function, yields the features batch by batch, each a sequence of arrays float32 [n, ...].
    workers: a distributed.Alone or Workers, whose processes all compute, and on each machine one writes.

    Returns a tuple of arrays float32 [count, ...], mapped into memory: only what is asked for is read.

    Raises safety.UserError where they cannot be kept.
    """
    pattern = 'features-{}-{}.npy'
    path = os.path.join(folder, pattern.format(name, _digest(depends_on, settings)))
    if not all(workers.gather(_is_there(path, count))):
        with contextlib.closing(compute()) as batches:
            if workers.writes_features:
                _write(path, count, batches)
                _remove_others(path, os.path.join(glob.escape(folder), pattern.format(name, '[0-9a-f]' * 32)))
            else:
                for _ in batches:
                    pass
        workers.gather(None)  # until then it need not be there
    rows = _map(path, count)
    return tuple(np.asarray(rows[name]) for name in rows.dtype.names)


def _is_there(path, count):
    try:
        return bool(_map(path, count).size)
    except Exception:  # not there, or damaged: what numpy raises depends on where
        return False


def _remove_others(path, pattern):
    for other in glob.glob(pattern):
        if other != path:
            with contextlib.suppress(OSError):  # another run was faster
                os.remove(other)


def _map(path, count):
    rows = np.lib.format.open_memmap(path, mode='r')
    if rows.shape != (count,) or not rows.dtype.names:
        raise ValueError
    return rows


def _digest(paths, settings):
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for path in tqdm(paths, desc='Look for features', unit='file', leave=False):
        with open(path, 'rb') as file:
            contents = hashlib.blake2b()
            for part in iter(lambda: file.read(1 << 20), b''):
                contents.update(part)
        digest.update(contents.digest())
    return digest.hexdigest()


def _write(path, count, batches):
    """Write the batches as one array with a row for each picture, whole or not at all."""
    try:
        with safety.scratch_folder(os.path.dirname(path)) as scratch:
            part = os.path.join(scratch, 'features.npy')
            # Not through a memory map, which would end the program where the disk is full.
            with open(part, 'wb') as file, tqdm(desc='Features', total=count, unit='picture') as bar:
                for arrays in batches:
                    row = np.dtype([('', array.dtype, array.shape[1:]) for array in arrays])
                    if not file.tell():
                        safety.check_space(os.path.dirname(path), count * row.itemsize, 'the features need')
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
        raise safety.UserError('{}: the features of the pictures cannot be written ({}). Make room for this file, and '
                               'the folder writable'.format(path, error.strerror))
