"""Whether another process is there, told by the port that it listens on."""
import queue
import socket
from unittest import mock

from fcn8 import lifeline
from tests.support import Case


class LifelineCase(Case):
    def setUp(self):
        super().setUp()
        soon = mock.patch.multiple(lifeline, START_LIMIT=0.3, INTERVAL=0.05, PATIENCE=0.2)
        soon.start()
        self.addCleanup(soon.stop)

    def listen(self):
        """A socket that listens, and its address."""
        process = socket.socket()
        self.addCleanup(process.close)
        process.bind(('127.0.0.1', 0))
        process.listen(100)
        return process, process.getsockname()


class Wait(LifelineCase):
    def test_a_process_that_never_comes_is_named(self):
        (_, there), (gone, missing) = self.listen(), self.listen()
        gone.close()
        lifeline.wait_for([there])
        message = self.assert_user_error(lifeline.wait_for, [there, missing])
        self.assertIn(f'127.0.0.1:{missing[1]} has not answered', message)


class Watch(LifelineCase):
    def test_the_process_that_ends_is_named(self):
        (_, there), (process, other) = self.listen(), self.listen()
        lost = queue.Queue()
        self.addCleanup(lifeline.watch([there, other], lost.put))
        with self.assertRaises(queue.Empty):
            lost.get(timeout=0.5)
        process.close()
        self.assertEqual(lost.get(timeout=10), 1)

    def test_an_end_of_the_watch_is_the_last_word(self):
        process, address = self.listen()
        lost = queue.Queue()
        stop = lifeline.watch([address], lost.put)
        stop()
        process.close()
        with self.assertRaises(queue.Empty):
            lost.get(timeout=0.5)
