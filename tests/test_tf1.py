"""The import of TensorFlow: its chatter, what is missing or broken, Ctrl-C."""
import os
import signal
import subprocess
import sys

from tests.support import ROOT, Case, write


class Import(Case):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path('data'))

    def start(self, module, code, **environment):
        """Run main.py with a module in the place of an installed one."""
        write(self.path('modules', module + '.py'), code.encode())
        return self.run_program(PYTHONPATH=self.path('modules'), **environment)

    def test_chatter_is_kept_back_and_warnings_are_not(self):
        chatter = ['I0000 00:00:1.2 3 port.cc:153] oneDNN', '2026-11-22 16:55:07.5: I tensorflow/core/x.cc:1] info',
                   '2026-11-22 16:55:07.5: W tensorflow/x.cc:55] Could not load dynamic library \'libcuda.so.1\'']
        warnings = ['2026-11-22 16:55:07.5: W tensorflow/x.cc:55] Could not load dynamic library \'libcudnn.so.7\'',
                    'F0000 00:00:1.2 3 cpu_feature_guard.cc:37] compiled to use AVX']
        code = 'import os\nos.write(2, {!r}.encode())\n'.format('\n'.join(chatter + warnings + ['']))
        for end in ('raise ImportError("no")', 'os.abort()'):
            output = self.start('tensorflow', code + end, TF_CPP_MIN_LOG_LEVEL='1')[1]
            self.assertEqual(output.splitlines()[:2], warnings)
        output = self.start('tensorflow', code + end, TF_CPP_MIN_LOG_LEVEL='0')[1]
        self.assertEqual(output.splitlines()[:5], chatter + warnings)

    def test_packages_that_are_missing_or_broken(self):
        for module, code, expected in (
                ('tensorflow', 'raise TypeError("Descriptors cannot be created directly.\\nmore lines")',
                 'Descriptors cannot be created directly'),
                ('h5py', 'import sys\nsys.modules["matplotlib"] = None', "No module named 'matplotlib'"),
                ('h5py', 'raise ModuleNotFoundError("No module named \'h5py\'")', "No module named 'h5py'")):
            status, output = self.start(module, code, TF_CPP_MIN_LOG_LEVEL='1')
            self.assertEqual(status, 2, output)
            self.assertRegex(output, f'^error: a package cannot be imported: {expected}. Needed: Python 3.7 with .*\n$')
        status, output = self.start('h5py', 'raise OSError(28, "No space left on device")', TF_CPP_MIN_LOG_LEVEL='1')
        self.assertEqual(status, 2, output)
        self.assertRegex(output, r'^error: a package cannot be imported: .*No space left on device\n$')
        # On a Python that is not supported the message gives the reason, too.
        code = 'import sys\nsys.version_info = (3, 8, 1)\n' + code
        self.assertIn("No module named 'h5py' (and this is Python 3.8). Needed: ",
                      self.start(module, code, TF_CPP_MIN_LOG_LEVEL='1')[1])
        status, output = self.start(module, code, TF_CPP_MIN_LOG_LEVEL='0')
        self.assertEqual(status, 1)
        self.assertIn('Traceback', output)

    def test_ctrl_c_ends_it_at_once_and_loses_no_line(self):
        write(self.path('modules', 'tensorflow.py'), b'import os\nos.write(2, b"warning\\n")\n'
              b'try:\n    os.killpg(0, 2)\nexcept KeyboardInterrupt:\n    pass\n')
        # In a process group of its own, all of which a terminal's Ctrl-C reaches
        process = subprocess.run([sys.executable, os.path.join(ROOT, 'main.py')], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder,
                                 env=dict(os.environ, PYTHONPATH=self.path('modules'), TF_CPP_MIN_LOG_LEVEL='1'))
        self.assertEqual((process.returncode, process.stdout), (-signal.SIGINT, b'warning\n'))
