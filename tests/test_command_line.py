"""The command line: from the arguments to what is done, or to one line that says what is wrong."""
import contextlib
import io
import os
import re
import sys
from unittest import mock

from fcn8.tf1 import tf

from fcn8 import command_line, launcher, processes
from fcn8.data import demo
from fcn8.results import evaluate, predict
from fcn8.settings import Settings
from tests.support import Case, RunCase, write


class CommandLineCase(Case):
    def ends(self, arguments, expected, status=2, run=None):
        """Parsing, and running if there is something to run, ends with this status in one line that matches."""
        errors = io.StringIO()
        with self.assertRaises(SystemExit) as ended, contextlib.redirect_stderr(errors):
            command_line.execute(command_line.parse(arguments), run)
        self.assertEqual(ended.exception.code, status)
        self.assertRegex(errors.getvalue(), '^error: [^\n]*' + expected + '[^\n]*\n$')


class Parse(CommandLineCase):
    def test_options_become_settings(self):
        for arguments, expected in (
                ([], Settings()),
                (['--epochs', '3', '--image-shape', '64', '96', '--l2', '0', '--augment', '--classes', 'c.json'],
                 Settings(epochs=3, image_shape=(64, 96), l2=0., augment=True, classes='c.json'))):
            options = command_line.parse(arguments)
            self.assertEqual(options.settings, expected)
            self.assertFalse(options.demo or options.debug or options.save_masks)

    def test_the_demo_has_settings_of_its_own_which_options_change(self):
        for arguments, expected in ((['--demo'], Settings(epochs=10, batch_size=1)),
                                    (['--demo', '--epochs', '3'], Settings(epochs=3, batch_size=1))):
            options = command_line.parse(arguments)
            self.assertEqual((options.demo, options.settings), (True, expected))

    def test_a_recipe_sets_what_the_user_does_not(self):
        tuned = dict(recipe='tuned', decoder_first=30, learning_rate=3e-4, decay=True, l2=1e-4, epochs=16, amp=True)
        for arguments, expected in (
                ('--recipe published', Settings()),
                ('--recipe frozen --epochs 3', Settings(recipe='frozen', freeze_encoder=True, amp=True, epochs=3)),
                ('--recipe tuned', Settings(**tuned)),
                ('--l2 0 --recipe tuned', Settings(**dict(tuned, l2=0.))),
                ('--demo --recipe tuned', Settings(**dict(tuned, batch_size=1)))):
            self.assertEqual(command_line.parse(arguments.split()).settings, expected)

    def test_a_run_that_is_the_working_folder(self):
        """Its name, and those beside it, are found."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.path('runs', '1.5', ''))
        for path in ('.', './', 'model/..'):
            self.assertEqual(command_line.parse(['--predict', 'x', '--model', path]).model, os.getcwd())

    def test_arguments_that_make_no_sense(self):
        for arguments, expected in (
                ('--epochs many', "argument --epochs: 'many' is not a whole number from 1"),
                ('--epochs 1.5', "argument --epochs: '1.5' is not a whole number from 1"),
                ('--epochs ' + '9' * 5000, "9' is not a whole number from 1"),
                ('--l2 1e-3x', "argument --l2: '1e-3x' is not a non-negative float32 number"),
                ('--epochs', 'argument --epochs: expected'),
                ('--image-shape 64', 'argument --image-shape: expected 2 arguments'),
                ('--image-shape 64 97', "argument --image-shape: '97' is not a positive multiple of 32"),
                ('--recipe best', "argument --recipe: 'best' is not one of published, frozen, tuned"),
                ('--recipe frozen --augment', 'leave out --augment'),
                ('--nonsense', 'unrecognized arguments: --nonsense'),
                ('data', 'unrecognized arguments: data'),
                ('--freeze-encoder --augment', 'leave out --augment'),
                ('--freeze-encoder --decoder-first 2', 'leave out --decoder-first')):
            with self.subTest(arguments[:40]):
                self.ends(arguments.split(' '), re.escape(expected))

    def test_modes(self):
        """A run is resumed, and a model used, with the settings of the run."""
        for arguments, expected in (
                ('--predict x.png', 'need --model RUN'), ('--evaluate data', 'need --model RUN'),
                ('--model runs/1', 'need --model RUN, and --model needs'),
                ('--save-masks', '--save-masks goes with --predict PATH'),
                ('--evaluate data --model runs/1 --save-masks', '--evaluate .*cannot be combined with --save-masks'),
                ('--predict x --evaluate data --model runs/1', 'cannot be combined with --(evaluate|predict)'),
                ('--predict x --model runs/1 --epochs 3', '--predict .*cannot be combined with --epochs'),
                ('--predict x --model runs/1 --demo', '--predict .*cannot be combined with --demo'),
                ('--resume runs/1 --batch-size 5', '--resume .*cannot be combined with --batch-size'),
                ('--resume runs/1 --demo', '--resume .*cannot be combined with --demo'),
                ('--resume runs/1 --runs-dir runs', '--resume .*cannot be combined with --runs-dir'),
                ('--resume nowhere', 'nowhere: no such folder')):
            with self.subTest(arguments):
                self.ends(arguments.split(), expected)
        os.makedirs(self.path('runs', '1.5'))
        os.symlink('1.5', self.path('runs', 'latest'))
        options = command_line.parse(['--predict', 'x', '--model', self.path('runs', 'latest'), '--save-masks'])
        self.assertEqual((options.settings, options.predict, options.model, options.save_masks),
                         (None, 'x', self.path('runs', '1.5'), True))
        with mock.patch.multiple(launcher, RANK=1, SIZE=2):
            self.ends(['--predict', 'x', '--model', 'runs/1'], 'work with a single process only')

    def test_processes(self):
        with mock.patch.object(processes, 'run') as run, mock.patch.object(sys, 'argv', ['main.py', '--demo']):
            command_line.begin()
            run.assert_not_called()
            sys.argv += ['--processes', '3']
            self.assertEqual(command_line.begin().settings, Settings(epochs=10, batch_size=1))
            run.assert_called_once_with(3)
            with mock.patch.multiple(launcher, RANK=1, SIZE=3):  # one that has been started
                command_line.begin()
                self.ends(['--processes', '2'], '--processes: 3 have been started already')
            run.assert_called_once()
        self.ends(['--predict', 'x', '--model', 'runs/1', '--processes', '2'], 'single process only: leave out --proc')


class Execute(CommandLineCase):
    def test_does_what_is_asked_for(self):
        done = []
        with mock.patch.object(predict, 'predict', lambda *args: done.append(('predict',) + args)), \
                mock.patch.object(evaluate, 'evaluate', lambda *args: done.append(('evaluate',) + args)), \
                mock.patch.object(demo, 'prepare', lambda settings: 'of ' + settings.data_dir):
            for arguments in ('--seed 3', '--demo --data-dir d', '--predict x --model runs/1 --save-masks',
                              '--evaluate y --model runs/1'):
                command_line.execute(command_line.parse(arguments.split()),
                                     lambda settings: done.append(('run', settings)))
        self.assertEqual(done, [('run', Settings(seed=3)),
                                ('run', Settings(epochs=10, batch_size=1, data_dir='of d')),
                                ('predict', 'x', 'runs/1', True), ('evaluate', 'y', 'runs/1')])

    def test_out_of_memory(self):
        """The hint names what would help, and nothing that has been done already."""
        def run(settings):
            raise tf.errors.ResourceExhaustedError(None, None, 'OOM\nwhen')

        for arguments, expected in (
                ('--batch-size 77', 'a smaller --batch-size or --amp or --freeze-encoder'),
                ('--batch-size 1 --amp', '--freeze-encoder'),
                ('--image-shape 320 1152 --freeze-encoder --amp', 'a smaller --batch-size or a smaller --image-shape'),
                ('--batch-size 1 --amp --freeze-encoder', 'a device with more memory')):
            self.ends(arguments.split(), 'out of memory: try ' + expected + '$', run=run)
        with mock.patch.object(predict, 'predict', side_effect=MemoryError):
            self.ends('--predict x --model runs/1'.split(), 'out of memory: try smaller pictures')


class Needs(RunCase):
    def test_what_the_end_needs_is_checked_before_the_training(self):
        write('file', b'')
        self.refused('file: cannot be written', '--runs-dir', 'file')
        os.remove('data/data_road/testing/gt_image_2/um_road_000001.png')
        self.refused('testing/image_2/um_000001.png: its label um_road_000001.png or um_000001.png is missing')


class Program(Case):
    def test_help_version_and_mistakes_come_without_tensorflow(self):
        write(self.path('modules', 'tensorflow.py'), b'raise RuntimeError("imported")')
        write(self.path('file'), b'')
        for arguments, status, expected in (
                (['--help'], 0, r'(?s)usage: main\.py .*--batch-size N +pictures in a training step \(default: 5\)'),
                (['--version'], 0, r'^FCN-8 road segmentation \d+\.\d+\n$'),
                (['--epochs', '0'], 2, "^error: argument --epochs: '0' is not .* --help\n$"),
                ([], 2, '^error: data: no such folder; create it, or name another with --data-dir\n$'),
                (['--demo', '--runs-dir', 'file'], 2, '^error: file: not a folder. Name another with --runs-dir\n$'),
                (['--demo', '--classes', 'file'], 2, '^error: file: cannot be read as JSON .*\n$')):
            got, output = self.run_program(*arguments, PYTHONPATH=self.path('modules'), COLUMNS='80', NO_COLOR='1')
            self.assertEqual(got, status, output)
            self.assertRegex(output, expected)
        os.mkdir(self.path('data'))
        self.assertIn('imported', self.run_program(PYTHONPATH=self.path('modules'))[1])
