"""Whether another process is there, according to the port that it listens on."""
import os
import queue
import signal
import socket
import threading
import time
import unittest
from unittest import mock

from fcn8 import errors, launcher, lifeline
from tests.support import Case


class LifelineCase(Case):
    def setUp(self):
        super().setUp()
        soon = mock.patch.multiple(lifeline, START_LIMIT=0.3, INTERVAL=0.05, PATIENCE=0.2)
        soon.start()
        self.addCleanup(soon.stop)

    def listen(self, host='127.0.0.1', family=socket.AF_INET):
        """A socket that listens, and its address."""
        process = socket.socket(family)
        self.addCleanup(process.close)
        process.bind((host, 0))
        process.listen(100)
        return process, process.getsockname()


class Wait(LifelineCase):
    def test_a_process_that_never_comes_is_named(self):
        (_, there), (gone, missing) = self.listen(), self.listen()
        gone.close()
        lifeline.wait_for([there])
        message = self.assert_user_error(lifeline.wait_for, [there, missing])
        self.assertIn(f'127.0.0.1:{missing[1]} has not answered', message)

    def test_ends_when_the_launcher_has(self):
        process, address = self.listen()
        process.close()
        with mock.patch.object(launcher, 'PARENT', 1 << 30), mock.patch.object(lifeline, 'START_LIMIT', 60):
            self.assertIn('started this one has ended', self.assert_user_error(lifeline.wait_for, [address]))

    @unittest.skipUnless(socket.has_ipv6, 'no IPv6')
    def test_an_address_in_brackets(self):
        address = self.listen('::1', socket.AF_INET6)[1]
        self.assertTrue(lifeline.is_there(('[::1]', address[1])))


class WithoutLauncher(LifelineCase):
    def test_asks_the_process_to_stop_unless_it_is_stopping(self):
        """A second SIGTERM would end it before its checkpoint is written, here with all tests."""
        for is_stopping in (False, True):
            with self.subTest(is_stopping), mock.patch.object(launcher, 'PARENT', 1 << 30), \
                    mock.patch.object(errors, 'SAME_SIGNAL', 0.01), self.assertRaises(errors.Stopped), \
                    errors.stop_between_steps() as stop_requested:
                if is_stopping:
                    os.kill(os.getpid(), signal.SIGTERM)
                    while not errors.is_stopping():
                        time.sleep(0.01)
                stop_watching = lifeline.watch({}, None)
                while not stop_requested():
                    time.sleep(0.01)
                time.sleep(5 * lifeline.INTERVAL)
                stop_watching()


class Watch(LifelineCase):
    def test_the_process_that_ends_is_named(self):
        (_, there), (process, other) = self.listen(), self.listen()
        lost = queue.Queue()
        self.addCleanup(lifeline.watch({2: there, 5: other}, lost.put))
        for _ in range(3):
            process.accept()[0].close()  # once for each look
        self.assertTrue(lost.empty())
        process.close()
        self.assertEqual(lost.get(timeout=60), 5)

    def test_an_end_of_the_watch_is_the_last_word(self):
        process, address = self.listen()
        lost, threads = queue.Queue(), set(threading.enumerate())
        stop = lifeline.watch({0: address}, lost.put)
        watcher, = set(threading.enumerate()) - threads
        stop()
        process.close()
        watcher.join(60)
        self.assertFalse(watcher.is_alive())
        self.assertTrue(lost.empty())
