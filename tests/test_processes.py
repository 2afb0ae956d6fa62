"""The launcher of --processes: what it says and returns for whatever its processes do, and that none is left."""
import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import unittest
from unittest import mock

from fcn8 import processes
from tests.support import ROOT, Case, read, write

# What each process does: {rank: code}
PROGRAM = '''
import json, os, sys, time
sys.path.insert(0, {root!r})
if len(sys.argv) == 1:
    sys.argv.append('started')
    from fcn8 import processes
    processes.GRACE = 1
    processes.run(2)
rank = json.loads(os.environ['TF_CONFIG'])['task']['index']
open('pid-%d' % rank, 'w').write(str(os.getpid()))
exec({{0: {chief!r}, 1: {other!r}}}[rank])
'''
KILL = 'os.kill(os.getpid(), 9)'
SLEEP = 'time.sleep(60)'


@unittest.skipIf(sys.version_info < (3, 9), 'horovodrun starts them')
class Run(Case):
    def start(self, chief, other):
        write(self.path('program.py'), PROGRAM.format(root=ROOT, chief=chief, other=other).encode())
        return subprocess.Popen([sys.executable, 'program.py'], cwd=self.folder, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def finish(self, program):
        """The exit status and the output of a program of which nothing is left."""
        output = program.communicate()[0]
        for rank in range(2):
            with self.assertRaises(ProcessLookupError):
                os.kill(int(read(self.path(f'pid-{rank}'))), 0)
        return program.returncode, output

    def test_what_the_processes_do_decides(self):
        killed = 'error: process {} was ended by SIGKILL. Start again, or go on with --resume\n'
        for chief, other, expected in (
                ('', '', (0, '')), ('', SLEEP, (0, '')), ('sys.exit(2)', SLEEP, (2, '')),
                (SLEEP, KILL, (137, killed.format(1))), (KILL, SLEEP, (137, killed.format(0))),
                ('time.sleep(0.5); sys.exit(3)', KILL, (137, '')), (SLEEP, 'sys.exit(2)', (2, ''))):
            with self.subTest(chief=chief, other=other):
                # None before both have begun: what is killed earlier leaves no file
                begun = 'while not os.path.exists("pid-0") or not os.path.exists("pid-1"): time.sleep(0.01)\n'
                for rank in range(2):
                    if os.path.exists(self.path(f'pid-{rank}')):
                        os.remove(self.path(f'pid-{rank}'))
                self.assertEqual(self.finish(self.start(begun + chief, begun + other)), expected)

    def test_a_stop_reaches_the_chief_alone(self):
        program = self.start(
            'try:\n    open("ready", "w"); time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(130)', SLEEP)
        while not os.path.exists(self.path('ready')) or not os.path.exists(self.path('pid-1')):
            time.sleep(0.01)
        program.send_signal(signal.SIGINT)
        self.assertEqual(self.finish(program), (130, ''))


class Horovod(Case):
    def test_needed_in_python_3_7(self):
        errors = io.StringIO()
        with mock.patch.object(sys, 'version_info', (3, 7)), contextlib.redirect_stderr(errors), \
                mock.patch.object(processes.importlib.util, 'find_spec', return_value=None), \
                self.assertRaises(SystemExit) as ended:
            processes.run(2)
        self.assertEqual(ended.exception.code, 2)
        self.assertRegex(errors.getvalue(), '^error: --processes needs Horovod in TensorFlow 1.15[^\n]*\n$')
