"""Files that are whole or not there at all: written beside and renamed, in scratch folders, under locks."""
import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time

from fcn8.errors import UserError, cannot_write

SCRATCH = '.fcn8-scratch-'
SCRATCH_AGE = 60  # seconds
LOCK = '.fcn8-lock'


def stem(path):
    """The name of a file without its extension."""
    return os.path.splitext(os.path.basename(path))[0]


@contextlib.contextmanager
def written_whole(path):
    """Yield a binary file beside `path` that replaces it in the end, or leaves nothing behind.

    Raises UserError if it cannot be written.
    """
    part = path + '.part'
    try:
        with open(part, 'wb') as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


@contextlib.contextmanager
def scratch_folder(folder):
    """Yield a new folder inside `folder`, for files that are renamed once they are complete; removed in the end.

    Scratch folders that killed processes have left there are removed, too.
    """
    for path in glob.glob(os.path.join(glob.escape(folder), SCRATCH + '*')):
        with contextlib.suppress(OSError):  # another process removes it, or still works in it
            # A young one may belong to a process that is about to lock it.
            if time.time() - os.path.getmtime(path) > SCRATCH_AGE:
                with locked(path) as certain:
                    pass
                if certain:
                    shutil.rmtree(path)  # without the lock: over NFS an open file cannot be removed
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as path, locked(path):
        yield path


@contextlib.contextmanager
def locked(folder, wait=False):
    """Hold the lock of a folder; yields whether there is one, as some file systems have no locks.

    wait: until another process has released it; otherwise a BlockingIOError is raised if one holds it.
    """
    # A file opened for writing: over NFS an exclusive lock can be had on nothing else.
    path = os.path.join(folder, LOCK)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not os.path.exists(path):
            raise
        descriptor = os.open(path, os.O_RDONLY)  # another user's
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            certain = True
        except BlockingIOError:
            raise
        except OSError:
            certain = False
        yield certain
    finally:
        os.close(descriptor)


def check_writable(folder):
    """Raise UserError unless files can be written to a folder, which is made if it is not there."""
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise cannot_write(folder, error) from error


def check_space(folder, size, purpose):
    """Raise UserError unless the disk of `folder` has `size` bytes left for that purpose."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(f'{folder}: {free / 1e6:,.1f} MB are free, and {purpose} {size / 1e6:,.1f} MB. Free some disk '
                        'space, or use a folder on another disk')


def sync(path):
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and shared folders cannot flush names.
        if not os.path.isdir(path) or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def read_json(path):
    """The JSON object in a file; raises OSError or ValueError."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except RecursionError as error:
        raise ValueError(error) from error
    if not isinstance(content, dict):
        raise ValueError('not a JSON object')
    return content


def digest(*parts):
    """A short hexadecimal digest of some bytes."""
    return hashlib.blake2b(b'\0'.join(parts), digest_size=16).hexdigest()


def update_with_file(hashed, path):
    """Update a hash object of hashlib with the content of a file, and return it."""
    with open(path, 'rb') as file:
        for part in iter(lambda: file.read(1 << 20), b''):
            hashed.update(part)
    return hashed


def digest_of_files(paths):
    """A short hexadecimal digest of the names and sizes of files."""
    lines = [f'{os.path.basename(path)} {os.path.getsize(path)}' for path in paths]
    return digest('\n'.join(lines).encode('utf-8', 'replace'))
