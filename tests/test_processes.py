"""The launcher of --processes: what it says and returns for whatever its processes do, and that none is left."""
import contextlib
import errno
import glob
import io
import os
import re
import signal
import subprocess
import sys
import time
import unittest
from unittest import mock

from fcn8 import launcher, processes
from tests.support import ROOT, Case, read, write

# The process of each rank runs the code of this rank, once all have begun: what is killed earlier leaves no file.
PROGRAM = '''
import json, os, signal, sys, time
sys.path.insert(0, {root!r})
codes = {codes!r}
if 'TF_CONFIG' not in os.environ:
    from fcn8 import processes
    {before}
    processes.run(len(codes))
rank = json.loads(os.environ['TF_CONFIG'])['task']['index']
open('new-%d' % rank, 'w').write(str(os.getpid()))
os.rename('new-%d' % rank, 'pid-%d' % rank)
while not all(os.path.exists('pid-%d' % rank) for rank in range(len(codes))):
    time.sleep(0.01)
exec(codes[rank])
'''
KILL = 'os.kill(os.getpid(), signal.SIGKILL)'
SLEEP = 'time.sleep(60)'
# What a process does that finds out that another one has gone
LOST = '''
try:
    while True:
        os.kill(int(open('pid-1').read()), 0)
        time.sleep(0.01)
except ProcessLookupError:
    sys.exit(3)
'''
# What the launcher does before: a signal that comes while the first process is started
SIGNAL = '''
    start = processes.subprocess.Popen
    def popen(*args, **kwargs):
        process = start(*args, **kwargs)
        open('pid-0', 'w').write(str(process.pid))
        os.kill(os.getpid(), signal.SIGTERM)
        return process
    processes.subprocess.Popen = popen
'''


@unittest.skipIf(sys.version_info < (3, 9), 'horovodrun starts them')
class Run(Case):
    def start(self, *codes, before=''):
        for path in glob.glob(self.path('pid-*')):
            os.remove(path)
        write(self.path('program.py'), PROGRAM.format(root=ROOT, codes=codes, before=before).encode())
        return subprocess.Popen([sys.executable, '-X', 'faulthandler', 'program.py'], cwd=self.folder,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish(self, program):
        """The exit status and the output of a program of which nothing is left."""
        output = program.communicate()[0]
        for path in glob.glob(self.path('pid-*')):
            with self.assertRaises(ProcessLookupError):
                os.kill(int(read(path)), 0)
        return program.returncode, output

    def test_what_the_processes_do_decides(self):
        killed = 'error: process [01] was ended by SIGKILL. Start again, or go on with --resume\n'
        for codes, status, expected in ((['', SLEEP], 0, ''), ([SLEEP, 'sys.exit(2)'], 2, ''),
                                        ([LOST, KILL], 137, ''), ([KILL, KILL, LOST], 137, killed)):
            with self.subTest(codes):
                before = 'processes.GRACE = 0.1' if 'sys.exit(2)' in codes else ''
                found, output = self.finish(self.start(*codes, before=before))
                self.assertEqual(found, status)
                self.assertTrue(re.fullmatch(expected, output), output)

    def test_a_stop_reaches_the_chief_alone(self):
        """Which has the options of Python that the launcher has."""
        program = self.start('try:\n    open("ready", "w"); time.sleep(60)\nexcept KeyboardInterrupt:\n'
                             '    sys.exit(130 if "faulthandler" in sys._xoptions else 1)', SLEEP)
        while not os.path.exists(self.path('ready')):
            time.sleep(0.01)
        program.send_signal(signal.SIGINT)
        self.assertEqual(self.finish(program), (130, ''))

    def test_a_stop_at_the_start_leaves_no_process(self):
        self.assertEqual(self.finish(self.start(SLEEP, SLEEP, before=SIGNAL)), (143, ''))


class Refused(Case):
    def refused(self, expected):
        """processes.run(4) ends in one line that matches, with exit status 2."""
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as ended:
            processes.run(4)
        self.assertEqual(ended.exception.code, 2)
        self.assertRegex(errors.getvalue(), f'^error: {expected}[^\n]*\n$')

    def refused_without_horovod(self):
        with mock.patch.object(sys, 'version_info', (3, 7)), \
                mock.patch.object(processes.importlib.util, 'find_spec', return_value=None):
            self.refused('--processes needs Horovod in TensorFlow 1.15. To install it: .*pip install .* -r ')

    def test_without_horovod_in_tensorflow_1(self):
        self.refused_without_horovod()

    def test_more_processes_than_gpus(self):
        for number in range(2):
            write(self.path('gpus', str(number)), b'')
        with mock.patch.object(launcher, 'DRIVERS_GPUS', self.path('gpus', '*')), mock.patch.dict(os.environ):
            for devices, count in (('0,1,2', 3), ('3', 1), (None, 2)):
                os.environ['CUDA_VISIBLE_DEVICES'] = str(devices)
                if not devices:
                    del os.environ['CUDA_VISIBLE_DEVICES']
                self.refused(f'--processes 4: visible GPUs: {count}. Use --processes {count}, or CUDA_VISIBLE_DEVICES=')
            with mock.patch.object(launcher, 'DRIVERS_GPUS', self.path('none', '*')), \
                    mock.patch.object(launcher.shutil, 'which', return_value='/usr/lib/wsl/lib/nvidia-smi'):
                self.refused_without_horovod()  # the number is not known

    @unittest.skipIf(sys.version_info < (3, 9), 'horovodrun starts them')
    def test_no_memory_for_another_process(self):
        for signum in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, signum, signal.getsignal(signum))
        with mock.patch.object(subprocess, 'Popen', side_effect=OSError(errno.ENOMEM, 'Cannot allocate memory')):
            self.refused('4 processes cannot be started: Cannot allocate memory')
