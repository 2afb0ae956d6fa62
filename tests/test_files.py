"""Files that are whole or not there at all, scratch folders, locks, and what killed processes leave."""
import errno
import fcntl
import glob
import os
import shutil
import signal
import subprocess
import sys
import threading
import unittest
from unittest import mock

from fcn8 import files
from tests.support import ROOT, Case, read, write


class WrittenWhole(Case):
    def test_a_file_takes_the_place_of_another_at_the_end(self):
        path = self.path('file')
        write(path, b'before')
        with files.written_whole(path) as file:
            file.write(b'after')
            file.flush()
            self.assertEqual(read(path), b'before')
        self.assertEqual(read(path), b'after')
        self.assertEqual(os.listdir(self.folder), ['file'])

    def test_a_failure_leaves_what_was_there_and_nothing_else(self):
        def write_file(error=None):
            with files.written_whole(path) as file:
                file.write(bytes(1000))
                file.flush()
                if error:
                    raise error

        path = self.path('file')
        write(path, b'before')
        for error in (KeyboardInterrupt, ValueError):
            self.assertRaises(error, write_file, error)
        os.symlink('/dev/full', path + '.part')
        self.assertIn('file: cannot be written (No space left on device)', self.assert_user_error(write_file))
        self.assertEqual(read(path), b'before')
        self.assertEqual(os.listdir(self.folder), ['file'])
        path = self.path('missing', 'file')
        os.rmdir(os.path.dirname(path))
        self.assertIn('file: cannot be written (No such file', self.assert_user_error(write_file))


class Sync(Case):
    def test_a_file_system_that_cannot_flush_names(self):
        path = self.path('file')
        write(path, b'')
        with mock.patch.object(os, 'fsync', side_effect=OSError(errno.EINVAL, 'Invalid argument')):
            files.sync(self.folder)
            self.assertRaises(OSError, files.sync, path)
        with mock.patch.object(os, 'fsync', side_effect=OSError(errno.EIO, 'Input/output error')):
            self.assertRaises(OSError, files.sync, self.folder)


class Locks(Case):
    def test_a_folder_has_one_lock(self):
        with files.locked(self.folder) as certain:
            self.assertTrue(certain)
            with self.assertRaises(BlockingIOError), files.locked(self.folder):
                pass
        with files.locked(self.folder) as certain:
            self.assertTrue(certain)

    def test_waiting_for_the_lock(self):
        waiting, events = threading.Event(), []

        def wait():
            waiting.set()
            with files.locked(self.folder, wait=True):
                events.append('locked again')

        thread = threading.Thread(target=wait)
        with files.locked(self.folder):
            thread.start()
            waiting.wait()
            thread.join(0.2)
            events.append('given up')
        thread.join()
        self.assertEqual(events, ['given up', 'locked again'])

    def test_is_one_that_nfs_can_hold(self):
        """There an exclusive lock needs a file that is opened for writing."""
        def flock(descriptor, operation):
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(9, 'Bad file descriptor')

        with mock.patch.object(fcntl, 'flock', flock), files.locked(self.folder) as certain:
            self.assertTrue(certain)

    def test_a_file_system_without_locks(self):
        with mock.patch.object(fcntl, 'flock', side_effect=OSError(37, 'No locks available')):
            with files.locked(self.folder) as certain:
                self.assertFalse(certain)


class ScratchFolders(Case):
    def scratch_folders(self):
        return set(map(os.path.basename, glob.glob(self.path('.*'))))

    def test_a_scratch_folder_is_removed_at_the_end(self):
        for error in (None, KeyboardInterrupt):
            try:
                with files.scratch_folder(self.folder) as scratch:
                    write(os.path.join(scratch, 'whole'), b'content')
                    os.rename(os.path.join(scratch, 'whole'), self.path('whole'))
                    write(os.path.join(scratch, 'half'), b'')
                    if error:
                        raise error
            except KeyboardInterrupt:
                pass
            self.assertEqual(os.listdir(self.folder), ['whole'])

    def test_what_a_killed_process_has_left_is_removed_with_the_next(self):
        code = ('import sys, time\n'
                'from fcn8 import files\n'
                'with files.scratch_folder(sys.argv[1]) as scratch:\n'
                '    print(scratch, flush=True)\n'
                '    time.sleep(60)\n')
        process = subprocess.Popen([sys.executable, '-c', code, self.folder], cwd=ROOT, stdout=subprocess.PIPE,
                                   universal_newlines=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        left = os.path.basename(process.stdout.readline().strip())
        os.utime(self.path(left), (0, 0))
        with files.scratch_folder(self.folder):
            self.assertIn(left, self.scratch_folders())  # still in use
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertEqual(self.scratch_folders(), {left})
        with files.scratch_folder(self.folder) as scratch:
            self.assertEqual(self.scratch_folders(), {os.path.basename(scratch)})

    def test_others_are_left_alone(self):
        young, foreign = files.SCRATCH + 'young', '.scratch'
        for name in (young, foreign):
            os.makedirs(self.path(name, 'data_road'))
        os.utime(self.path(foreign), (0, 0))
        with files.scratch_folder(self.folder):
            pass
        self.assertEqual(self.scratch_folders(), {young, foreign})
        os.utime(self.path(young), (0, 0))
        with mock.patch.object(fcntl, 'flock', side_effect=OSError(37, 'No locks available')):
            with files.scratch_folder(self.folder):  # without locks it may be in use
                pass
        self.assertEqual(self.scratch_folders(), {young, foreign})


class Space(Case):
    def test_space_that_is_missing(self):
        with mock.patch.object(shutil, 'disk_usage', return_value=mock.Mock(free=2e6)):
            files.check_space(self.folder, 2e6, 'the archive unpacks to')
            message = self.assert_user_error(files.check_space, self.folder, 3.5e9, 'the archive unpacks to')
        self.assertIn(self.folder + ': 2.0 MB are free, and the archive unpacks to 3,500.0 MB. Free some', message)


if __name__ == '__main__':
    unittest.main()
