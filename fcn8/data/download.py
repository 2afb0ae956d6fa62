"""Fetches VGG-16 and the KITTI road set: whole or not at all, and continued where a server cuts off.

By hand: of the well-kept libraries none resumes a download across two starts of the program.
"""
import contextlib
import errno
import hashlib
import http.client
import os
import shutil
import socket
import ssl
import urllib.error
import urllib.request
import zipfile

from tqdm.utils import CallbackIOWrapper

from fcn8 import distributed, progress
from fcn8.data import vgg16
from fcn8.errors import DISK_FULL, READ_ONLY, UserError
from fcn8.files import check_space, locked, scratch_folder, update_with_file, written_whole

VGG_URL = 'https://s3-us-west-1.amazonaws.com/udacity-selfdrivingcar/vgg.zip'
KERAS_URL = ('https://storage.googleapis.com/tensorflow/keras-applications/vgg16/'
             'vgg16_weights_tf_dim_ordering_tf_kernels.h5')
KITTI_URL = 'https://s3.eu-central-1.amazonaws.com/avg-kitti/data_road.zip'
KERAS_MD5 = '64373286793e3c8b2b4e3219cbf3544b'  # as Keras publishes it
TRIES = 3
FAILURES = (OSError, http.client.HTTPException, zipfile.BadZipFile)
CUT_OFF = (ConnectionResetError, ConnectionAbortedError, socket.timeout, ssl.SSLError, http.client.IncompleteRead)
UNPACKED_MB = 4096  # the most that an archive may unpack to: several times the size of VGG-16 and KITTI


def fetch_vgg(data_dir):
    """helper.maybe_download_pretrained_vgg(): the published archive, or a model built from Keras's ImageNet weights."""
    vgg_path = os.path.join(data_dir, 'vgg')

    def fetch():
        try:
            _fetch_archive(VGG_URL, data_dir, 'vgg')
        except FAILURES as error:
            print(f'{VGG_URL}: {error}. Building VGG-16 from the ImageNet weights of Keras instead.')
            weights_file = os.path.join(data_dir, 'vgg16_weights.h5')
            try:
                _download(KERAS_URL, weights_file)
                if update_with_file(hashlib.md5(), weights_file).hexdigest() != KERAS_MD5:
                    raise ValueError('its MD5 is not ' + KERAS_MD5)
                vgg16.write_from_keras(vgg_path, weights_file)
            except (OSError, http.client.HTTPException, ValueError) as second_error:
                _remove(weights_file)
                raise UserError(
                    f'VGG-16 can be downloaded neither from {VGG_URL} ({error}) nor from {KERAS_URL} ({second_error}). '
                    f'Unpack vgg.zip to {vgg_path} by hand, or try `python main.py --demo`, which needs neither'
                ) from second_error
            _remove(weights_file)
            _remove(os.path.join(data_dir, 'vgg.zip.part'))  # of the archive, which is not needed any more

    _once(fetch, vgg_path, ('saved_model.pb', 'variables/variables.index', 'variables/variables.data-00000-of-00001'))


def fetch_kitti_road(data_dir):
    """helper.maybe_download_kitti_road()."""
    data_road = os.path.join(data_dir, 'data_road')

    def fetch():
        print('KITTI road set of www.cvlibs.net/datasets/kitti, licence CC BY-NC-SA 3.0: not for commercial use')
        try:
            _fetch_archive(KITTI_URL, data_dir, 'data_road')
        except FAILURES as error:
            raise UserError(
                f'the KITTI road set cannot be downloaded from {KITTI_URL} ({error}). Unpack data_road.zip of '
                f'www.cvlibs.net/datasets/kitti to {data_road} by hand, or try `python main.py --demo`, which needs no '
                'data') from error

    _once(fetch, data_road, ('training/image_2', 'training/gt_image_2', 'testing/image_2'))


def _once(fetch, folder, parts):
    """Fetch unless `folder` has all its parts; of several processes one does so, while the others wait."""
    data_dir = os.path.dirname(folder)
    if distributed.is_first_on_machine() and _is_missing(folder, parts):
        with contextlib.ExitStack() as stack:
            try:
                certain = stack.enter_context(locked(data_dir))
            except BlockingIOError:
                print(f'Waiting for another process that downloads to {data_dir}')
                certain = stack.enter_context(locked(data_dir, wait=True))
            if not certain:
                print(f'{data_dir}: the file system has no locks. Do not start a second run before this download ends')
            if _is_missing(folder, parts):
                fetch()
    distributed.gather(None)  # until then the others wait


def _is_missing(folder, parts):
    """False if `folder` has all its parts, True if it is missing or empty; any other folder is left alone."""
    data_dir = os.path.dirname(folder)
    if not os.path.isdir(data_dir):
        raise UserError(f'{data_dir}: no such folder; create it, or name another with --data-dir')
    if not os.path.lexists(folder) or os.path.isdir(folder) and not os.listdir(folder):
        if os.path.islink(folder) or os.path.ismount(folder):  # which cannot be replaced
            raise UserError(f'{folder}: leads to an empty folder. Fill it, or remove the link or the mount, and the '
                            f'next start downloads to {data_dir}')
        return True
    for part in parts:
        if not os.path.exists(os.path.join(folder, part)):
            raise UserError(f'{folder}: {part} is missing. Complete the folder, or move it away, and the next start '
                            'replaces it')
    return False


def _fetch_archive(url, data_dir, name):
    """Download the zip archive at `url` and put its folder `name` into data_dir/name, whole or not at all.

    Raises one of FAILURES, and UserError if the disk lacks the space. What was downloaded is kept for the next start,
    unless it is another file.
    """
    archive = os.path.join(data_dir, name + '.zip')
    given = os.path.exists(archive)
    if not given:
        _download(url, archive)
    try:
        with scratch_folder(data_dir) as scratch:
            _unpack(archive, scratch)
            if not os.path.isdir(os.path.join(scratch, name)):
                raise zipfile.BadZipFile(f'the archive holds no folder {name}')
            sha256 = update_with_file(hashlib.sha256(), archive).hexdigest()
            print(f'SHA-256 of {url}: {sha256}')
            with written_whole(os.path.join(data_dir, name + '.zip.sha256')) as file:
                file.write(f'{sha256}  {name}.zip\n'.encode())
            os.rename(os.path.join(scratch, name), os.path.join(data_dir, name))
    except zipfile.BadZipFile as error:
        if given:  # by the user, perhaps
            raise UserError(f'{archive}: not a whole zip archive of {name} ({error}). Copy it again, or remove it, and '
                            'the next start downloads it') from error
        os.remove(archive)
        raise
    os.remove(archive)


def _unpack(archive, folder):
    """Unpack the zip archive, which zipfile keeps inside the folder; BadZipFile if it is damaged or too large."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            size = sum(member.file_size for member in members)
            if size > UNPACKED_MB * 1e6:
                raise zipfile.BadZipFile(f'the archive would unpack to {size / 1e6:,.0f} MB, more than the limit of '
                                         f'{UNPACKED_MB:,} MB')
            check_space(folder, size, 'the archive unpacks to')
            for member in progress.bar(members, desc='Unpack', unit='file', leave=False):
                file.extract(member, folder)
    except (zipfile.BadZipFile, UserError):
        raise
    except Exception as error:  # what a damaged archive raises depends on where the damage is
        if getattr(error, 'errno', None) in DISK_FULL + READ_ONLY + (errno.EIO,):  # no damage
            raise
        raise zipfile.BadZipFile(str(error)) from error


def _download(url, path):
    """Download `url` to `path` through path + '.part', which this and later calls continue where a server cuts off."""
    part = path + '.part'
    for remaining in reversed(range(TRIES)):
        try:
            total = _download_part(url, part)
        except CUT_OFF as error:
            message = f'cut off ({error})'
        else:
            if total is None or os.path.getsize(part) == total:
                os.replace(part, path)
                return
            message = f'cut off after {os.path.getsize(part):,} of {total:,} bytes'
            if os.path.getsize(part) > total:
                os.remove(part)
        if not remaining:
            raise OSError(message + '; the next start continues from there')


def _download_part(url, part):
    """Download the rest of `part`; returns the size of the whole in bytes, None if the server does not say."""
    # From the last byte that is there, not from the one behind it: of a complete file that would be an error.
    start = max(os.path.getsize(part) - 1, 0) if os.path.exists(part) else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={start}-'} if start else {})
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
        check_space(os.path.dirname(part), response.length or 0, f'{url} has')
        with open(part, 'r+b' if start else 'wb') as file, progress.bar(
                total=total, initial=start, desc=os.path.basename(part)[:-5], unit='B', unit_scale=True,
                unit_divisor=1024, miniters=1) as bar:
            file.seek(start)
            shutil.copyfileobj(response, CallbackIOWrapper(bar.update, file, 'write'), 1 << 20)
    return total


class _NoRedirectToHttp(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, but not from https to anything else."""

    def redirect_request(self, request, file, code, message, headers, new_url):
        if request.type == 'https' and not new_url.lower().startswith('https:'):
            raise urllib.error.URLError(f'the server redirects to {new_url}, which is not https')
        return super().redirect_request(request, file, code, message, headers, new_url)


def _remove(path):
    if os.path.exists(path):
        os.remove(path)
