"""Downloads of VGG-16 and the KITTI road set, from a server on this machine."""
import contextlib
import fcntl
import hashlib
import http.server
import io
import os
import re
import shutil
import socket
import struct
import threading
import time
import urllib.request
import zipfile
from unittest import mock

from fcn8.tf1 import tf

import h5py
import numpy as np

import main
from fcn8.data import download, vgg16
from fcn8.errors import UserError
from tests.support import Case, read, write

VGG = ('vgg/saved_model.pb', 'vgg/variables/variables.index', 'vgg/variables/variables.data-00000-of-00001')
KITTI = ('data_road/training/image_2/a.png', 'data_road/training/gt_image_2/a.png', 'data_road/testing/image_2/a.png')
CONTENT = np.random.RandomState(0).bytes(5000)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the bytes in `files` by path, with ranges; `cut` maps a path to the bytes after which each answer ends.

    As often as a path stands in `resets`, the connection is reset then. In place of bytes an error status may stand.
    `ranges` has the first byte of each answer.
    """

    def do_GET(self):
        content = self.server.files.get(self.path, 404)
        if isinstance(content, int):
            self.send_error(content)
            return
        wanted = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
        start = int(wanted.group(1)) if wanted else 0
        self.server.ranges.append(start)
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][:self.server.cut.get(self.path)])
        if self.path in self.server.resets:
            self.server.resets.remove(self.path)
            self.wfile.flush()
            time.sleep(0.1)  # so that what has been written arrives
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.connection.close()

    def log_message(self, *args):
        pass


def zip_of(names, content=CONTENT):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, content)
    return archive.getvalue()


class Downloads(Case):
    def setUp(self):
        super().setUp()
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
        server.files, server.cut, server.ranges = {'/vgg': zip_of(VGG), '/kitti': zip_of(KITTI)}, {}, []
        server.resets = []
        self.server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        urls = mock.patch.multiple(download, **{f'{name}_URL': f'http://127.0.0.1:{server.server_port}/{name.lower()}'
                                                for name in ('VGG', 'KERAS', 'KITTI')})
        urls.start()
        self.addCleanup(urls.stop)

    def left(self):
        """What is in the data folder, beside its lock and the digests of archives."""
        return sorted(name for name in os.listdir(self.folder) if name != '.fcn8-lock' and not name.endswith('.sha256'))

    def assert_fetched(self, *parts):
        """The files are there, and nothing else."""
        self.assertEqual(self.left(), sorted({name.split('/')[0] for names in parts for name in names}))
        for names in parts:
            for name in names:
                self.assertEqual(read(self.path(name)), CONTENT)

    def assert_fails(self, expected):
        message = self.assert_user_error(download.fetch_kitti_road, self.folder)
        self.assertIn(expected, message)
        return message

    def test_once(self):
        os.makedirs(self.path('data_road'))  # an empty folder is no obstacle
        expected = hashlib.sha256(self.server.files['/kitti']).hexdigest()
        for _ in range(2):
            download.fetch_vgg(self.folder)
            download.fetch_kitti_road(self.folder)
            self.assert_fetched(VGG, KITTI)
            self.server.files = {}
        self.assertEqual(self.server.ranges, [0, 0])
        self.assertEqual(self.printed.getvalue().count('CC BY-NC-SA'), 1)
        self.assertEqual(read(self.path('data_road.zip.sha256')).decode(), expected + '  data_road.zip\n')
        self.assertIn(f'SHA-256 of {download.KITTI_URL}: {expected}', self.printed.getvalue())

    def test_two_at_once(self):
        """One waits for the other; neither fails, and one alone downloads."""
        both = threading.Barrier(2)
        calls, errors, waiting = [], [], threading.Event()

        @contextlib.contextmanager
        def locked(folder, wait=False):
            if folder == self.folder:
                calls.append(folder)
                if wait:
                    waiting.set()
            with locked_before(folder, wait) as certain:
                yield certain

        def answer_late(server):
            waiting.wait(60)  # until the other waits for the lock
            do_get(server)

        def fetch():
            try:
                both.wait(60)
                download.fetch_kitti_road(self.folder)
                self.assert_fetched(KITTI)
            except BaseException as error:
                errors.append(error)
                waiting.set()

        locked_before, do_get = download.locked, Server.do_GET
        with mock.patch.object(download, 'locked', locked), mock.patch.object(Server, 'do_GET', answer_late):
            threads = [threading.Thread(target=fetch) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
        self.assertEqual((errors, self.server.ranges, len(calls)), ([], [0], 3))
        self.assertIn('Waiting for another process that downloads to ' + self.folder, self.printed.getvalue())

    def test_a_file_system_without_locks(self):
        with mock.patch.object(fcntl, 'flock', side_effect=OSError(37, 'No locks available')):
            download.fetch_kitti_road(self.folder)
        self.assert_fetched(KITTI)
        self.assertIn(self.folder + ': the file system has no locks.', self.printed.getvalue())

    def test_a_download_that_is_cut_off_goes_on(self):
        self.server.cut = {'/kitti': 9000}
        download.fetch_kitti_road(self.folder)
        self.assert_fetched(KITTI)
        self.assertEqual(self.server.ranges, [0, 8999])
        shutil.rmtree(self.path('data_road'))
        self.server.cut = {'/kitti': 1000}
        self.assert_fails('cut off after 2,998 of')
        self.assertEqual(self.left(), ['data_road.zip.part'])
        self.server.cut = {}
        download.fetch_kitti_road(self.folder)  # the next start
        self.assert_fetched(KITTI)
        self.assertEqual(self.server.ranges[-1], 2997)

    def test_a_download_whose_connection_is_reset_goes_on(self):
        self.server.cut, self.server.resets = {'/kitti': 9000}, ['/kitti']
        download.fetch_kitti_road(self.folder)
        self.assert_fetched(KITTI)
        self.assertEqual(self.server.ranges, [0, 0, 8999])  # what had not been written is lost
        shutil.rmtree(self.path('data_road'))
        self.server.cut, self.server.resets = {'/kitti': 1000}, ['/kitti'] * download.TRIES
        self.assertRegex(self.assert_fails('the next start continues from there'), 'cut off .*reset by peer')

    def test_a_link_to_an_empty_folder(self):
        self.path('elsewhere', '')
        os.symlink('elsewhere', self.path('data_road'))
        self.assert_fails('data_road: leads to an empty folder. Fill it, or remove the link')
        self.assertEqual(self.server.ranges, [])

    def test_part_files(self):
        write(self.path('data_road.zip.part'), self.server.files['/kitti'])  # complete
        download.fetch_kitti_road(self.folder)
        self.assert_fetched(KITTI)
        shutil.rmtree(self.path('data_road'))
        write(self.path('data_road.zip.part'), bytes(20000))  # longer than the server's
        self.assert_fails('416')
        download.fetch_kitti_road(self.folder)
        self.assert_fetched(KITTI)

    def test_an_archive_that_the_user_has_put_there_is_kept(self):
        with open(self.path('data_road.zip'), 'wb') as file:
            file.write(b'no zip')
        self.assertRegex(self.assert_user_error(download.fetch_kitti_road, self.folder),
                         'data_road.zip: not a whole zip archive .* Copy it again')
        self.assertEqual(read(self.path('data_road.zip')), b'no zip')

    def test_an_archive_is_kept_when_unpacking_is_interrupted(self):
        for problem in (KeyboardInterrupt, OSError(28, 'No space left on device')):
            with mock.patch.object(zipfile.ZipFile, 'extract', side_effect=problem), \
                    self.assertRaises((KeyboardInterrupt, UserError)):
                download.fetch_kitti_road(self.folder)
            self.assertEqual(self.left(), ['data_road.zip'])
        self.server.files = {}
        download.fetch_kitti_road(self.folder)
        self.assert_fetched(KITTI)

    def test_errors_of_the_server(self):
        for status in (404, 500):
            self.server.files = {'/kitti': status}
            message = self.assert_fails(str(status))
            for part in (download.KITTI_URL, self.path('data_road'), '--demo'):
                self.assertIn(part, message)
        with mock.patch.object(Server, 'do_GET', lambda server: None):
            self.assert_fails('closed connection')
        with mock.patch.object(Server, 'do_GET', lambda server: server.send_response(200) or server.end_headers()):
            self.assert_fails('not a zip')
        self.assertEqual(self.left(), [])

    def test_redirects(self):
        def redirect(server):
            if server.path == '/moved':
                server.path = '/kitti'
                do_get(server)
                return
            server.send_response(302)
            server.send_header('Location', '/moved')
            server.end_headers()

        do_get = Server.do_GET
        with mock.patch.object(Server, 'do_GET', redirect):
            download.fetch_kitti_road(self.folder)
        self.assert_fetched(KITTI)
        # There is no server with https here.
        handler = download._NoRedirectToHttp()
        for url in ('http://example.com/x', 'ftp://example.com/x', 'file:///etc/passwd'):
            with self.assertRaisesRegex(OSError, f'redirects to {url}, which is not https'):
                handler.redirect_request(urllib.request.Request('https://example.com'), None, 302, '', {}, url)

    def test_archives_that_are_none_or_of_something_else(self):
        damaged = bytearray(self.server.files['/kitti'])
        damaged[100:200] = bytes(100)
        for content, expected in ((b'<html>' + bytes(1000), 'not a zip'), (bytes(damaged), 'cannot be downloaded'),
                                  (zip_of(['other/file']), 'no folder data_road')):
            with self.subTest(expected):
                self.server.files = {'/kitti': content}
                self.assert_fails(expected)
                self.assertEqual(self.left(), [])

    def test_archives_that_would_do_harm(self):
        link = zipfile.ZipInfo('data_road/link')
        link.external_attr = 0o120777 << 16
        self.server.files = {'/kitti': zip_of([link], '/etc/passwd')}
        download.fetch_kitti_road(self.folder)
        self.assertFalse(os.path.islink(self.path('data_road', 'link')))
        shutil.rmtree(self.path('data_road'))
        outside = os.path.basename(self.folder) + '-outside'
        self.server.files = {'/kitti': zip_of([f'data_road/../../../{outside}', f'../../{outside}', KITTI[0]])}
        download.fetch_kitti_road(self.folder)
        self.assertFalse(os.path.exists(os.path.join(os.path.dirname(self.folder), outside)))
        self.assertEqual(self.left(), ['data_road'])
        shutil.rmtree(self.path('data_road'))
        self.server.files = {'/kitti': zip_of(['data_road/zeros'], bytes(2 * 10 ** 6))}
        with mock.patch.object(download, 'UNPACKED_MB', 1):
            self.assert_fails('unpack to 2 MB, more than the limit of 1 MB')
        with mock.patch.object(shutil, 'disk_usage', return_value=mock.Mock(free=1e6)):
            self.assert_fails('1.0 MB are free, and the archive unpacks to 2.0 MB')
        self.assertEqual(self.left(), ['data_road.zip'])  # for the next start

    def test_vgg_is_built_from_the_weights_of_keras_where_the_archive_fails(self):
        with h5py.File(self.path('weights.h5'), 'w') as file:
            depth_in = 3
            for name in vgg16.LAYERS:
                shape = {'fc6': (7 * 7 * 4, 4), 'fc7': (4, 5)}.get(name, (3, 3, depth_in, 4))
                group = file.create_group({'fc6': 'fc1', 'fc7': 'fc2'}.get(
                    name, name.replace('conv', 'block').replace('_', '_conv')))
                group['kernel'], group['bias'], depth_in = np.ones(shape), np.ones(shape[-1]), 4
        weights = read(self.path('weights.h5'))
        os.remove(self.path('weights.h5'))
        self.server.files['/keras'], self.server.cut = weights, {'/vgg': 1000}
        self.assertIn('its MD5 is not', self.assert_user_error(download.fetch_vgg, self.folder))
        with mock.patch.object(download, 'KERAS_MD5', hashlib.md5(weights).hexdigest()):
            download.fetch_vgg(self.folder)
        self.assertEqual(self.left(), ['vgg'])
        with tf.Session() as sess:
            self.assertEqual(main.load_vgg(sess, self.path('vgg'))[4].shape.as_list()[-1], 5)

    def test_vgg_where_both_fail(self):
        self.server.files = {'/keras': b'not HDF5'}
        message = self.assert_user_error(download.fetch_vgg, self.folder)
        for part in (download.VGG_URL, download.KERAS_URL, self.path('vgg'), '--demo'):
            self.assertIn(part, message)
        self.assertEqual(self.left(), [])

    def test_something_else_in_its_place(self):
        os.makedirs(self.path('vgg', 'variables'))
        os.makedirs(self.path('data_road', 'training', 'image_2'))
        self.assertIn('saved_model.pb is missing', self.assert_user_error(download.fetch_vgg, self.folder))
        self.assert_fails('gt_image_2 is missing')
        self.assertIn('no such folder', self.assert_user_error(download.fetch_vgg, self.path('no')))
        self.assertEqual(self.server.ranges, [])


class Addresses(Case):
    def test_are_https(self):
        for url in (download.VGG_URL, download.KERAS_URL, download.KITTI_URL):
            self.assertRegex(url, '^https://')
