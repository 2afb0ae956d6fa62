"""The settings: their defaults, their checks, those that a run has saved, and their table in the guide."""
import contextlib
import dataclasses
import io
import json
import os

from fcn8 import command_line, settings
from fcn8.errors import UserError
from fcn8.settings import Settings
from tests.support import ROOT, Case, write

NAN, INFINITE = float('nan'), float('inf')


class Defaults(Case):
    def test_are_the_published_ones(self):
        default = Settings()
        self.assertEqual((default.epochs, default.batch_size, default.learning_rate, default.keep_prob, default.l2),
                         (50, 5, 9e-4, 0.5, 1e-3))
        self.assertEqual(default.image_shape, (160, 576))
        self.assertEqual((default.validation, default.decoder_first), (0, 0))
        self.assertFalse(default.augment or default.decay or default.freeze_encoder or default.amp)

    def test_the_guide_has_them_in_a_table(self):
        with open(os.path.join(ROOT, 'docs', 'guide.md'), encoding='utf-8') as file:
            rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in file if line.startswith('| `--')]
        for field in dataclasses.fields(Settings):
            self.assertIn(option_and_default(field), [row[:2] for row in rows])


def option_and_default(field):
    """The first two cells of the row of a setting: | `--batch-size N` | 5 | pictures in a training step |"""
    default = field.default
    metavar = field.metadata['kind'].metavar or ''
    words = metavar if isinstance(metavar, tuple) else (metavar,)
    if isinstance(default, tuple):
        default = ' '.join(map(str, default))
    return [f'`{" ".join((settings.option_name(field.name),) + words).strip()}`',
            '' if default is None or isinstance(default, bool) else str(default)]


class Values(Case):
    """Values are checked alike, whether they come from the command line or from the settings.json of a run."""

    def assert_accepted(self, name, value, from_text=True):
        self.assertEqual(getattr(Settings(**{name: value}), name), tuple(value) if name == 'image_shape' else value)
        if from_text:
            self.assertEqual(getattr(self.parse(name, value), name), getattr(Settings(**{name: value}), name))

    def assert_refused(self, name, value, from_text=True):
        message = self.assert_user_error(Settings, **{name: value})
        option = '--' + name.replace('_', '-')
        self.assertRegex(message, f'^{option}: .* is not (a|true or false)')
        if from_text:
            with self.assertRaises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as errors:
                self.parse(name, value)
            self.assertEqual(ended.exception.code, 2)
            self.assertRegex(errors.getvalue(), f'^error: argument {option}: .* is not a')

    def parse(self, name, value):
        values = value if isinstance(value, (list, tuple)) else [value]
        return command_line.parse(['--' + name.replace('_', '-'), *map(str, values)]).settings

    def test_numbers_and_paths(self):
        for name, accepted, refused in (
                ('epochs', (1, 2 ** 31 - 1), (0, -1, 1.5, 2 ** 31)),
                ('batch_size', (1, 64), (0, -5, 2 ** 31)),
                ('decoder_first', (0, 30), (-1, 0.5, 2 ** 31)),
                ('cache_mb', (0, 64), (-1, 0.5)),
                ('seed', (0, 2 ** 32 - 1), (-1, 2 ** 32)),
                ('learning_rate', (1e-6, 1.), (0., -1., NAN, INFINITE, 1e300, 1e-300)),
                ('keep_prob', (0.1, 1.), (0., 1.1, 1e-300, NAN)),
                ('l2', (0., 0.1), (-1., NAN, 1e300)),
                ('validation', (0., 0.99), (1., -0.1, NAN)),
                ('image_shape', ([64, 96], [32, 32736]), ([100, 96], [0, 96], [64, 32768], [-32, 32])),
                ('data_dir', ('data', 'd a/t\u00e4'), ('a[1]', 'a\\b', 'a\udcffb')),
                ('runs_dir', ('/runs',), ('a[1]',)), ('classes', ('c[1].json',), ('',))):
            for value in accepted:
                with self.subTest(f'{name} {value!r}'):
                    self.assert_accepted(name, value)
            for value in refused:
                with self.subTest(f'{name} {value!r}'):
                    self.assert_refused(name, value)

    def test_other_types(self):
        """JSON has types that the texts of the command line have not."""
        for name, value in (('epochs', True), ('epochs', None), ('epochs', '5'), ('epochs', 5.), ('l2', [1]),
                            ('learning_rate', '0.1'), ('learning_rate', True), ('learning_rate', 10 ** 400), ('amp', 1),
                            ('augment', 'true'), ('image_shape', 64), ('image_shape', [64]), ('image_shape', '64'),
                            ('image_shape', [64, 96, 3]), ('image_shape', [64., 96]), ('data_dir', False),
                            ('data_dir', None), ('classes', 5)):
            with self.subTest(f'{name} {value!r}'[:50]):
                self.assert_refused(name, value, from_text=False)
        self.assert_accepted('learning_rate', 1)  # JSON's 1 is a float, too
        self.assert_accepted('classes', None, from_text=False)
        for name in ('amp', 'augment'):
            self.assert_accepted(name, True, from_text=False)


class Resumed(Case):
    def save(self, changes=(), leave_out=(), **parts):
        saved = dict(Settings(epochs=7, seed=3, image_shape=(64, 96)).saved(), **dict(changes))
        for name in leave_out:
            del saved[name]
        content = dict(dict(settings=saved, made_with={}, about={}, changes=[]), **parts)
        write(self.path('settings.json'), json.dumps(content).encode())

    def resumed(self, **given):
        return settings.resumed(self.folder, given)

    def refused(self, expected, **given):
        message = self.assert_user_error(self.resumed, **given)
        self.assertRegex(message, expected)
        return message

    def test_are_those_of_the_run_with_the_given_ones_in_their_place(self):
        self.save()
        expected = Settings(epochs=7, seed=3, image_shape=(64, 96), resume=self.folder)
        self.assertEqual(self.resumed(), expected)
        self.assertEqual(self.resumed(epochs=9, data_dir='elsewhere'),
                         dataclasses.replace(expected, epochs=9, data_dir='elsewhere'))
        self.refused('--epochs 6: the run has 7. Ask for', epochs=6)

    def test_a_setting_that_an_older_version_has_not_saved_has_its_default(self):
        self.save(leave_out=['decay', 'l2', 'classes'])
        self.assertEqual(self.resumed(), Settings(epochs=7, seed=3, image_shape=(64, 96), resume=self.folder))

    def test_settings_that_make_no_sense(self):
        for name, value, expected in (('epochs', -1, '--epochs: -1 is not a whole number'),
                                      ('learning_rate', NAN, '--learning-rate: nan is not'),
                                      ('freeze_encoder', None, '--freeze-encoder: None is not'),
                                      ('decoder_frist', 3, '"decoder_frist" is not a setting'),
                                      ('resume', 'x', '"resume" is not a setting'), ('runs_dir', 'x', '"runs_dir"')):
            with self.subTest(name):
                self.save({name: value})
                self.refused(self.path('settings.json') + ': ' + expected)
        self.save(dict(freeze_encoder=True, augment=True))
        self.refused('settings.json: .*leave out --augment')

    def test_what_is_not_the_folder_of_a_run(self):
        self.refused(self.folder + ': not the folder of a run')
        for content in (b'', b'{', b'[]', b'\xff\xfe', b'[' * 100000, b'{"settings": 3}', b'{"settings": {}}',
                        b'{"settings": {}, "made_with": {}, "about": 3, "changes": []}'):
            with self.subTest(content[:30]):
                write(self.path('settings.json'), content)
                self.refused('settings.json: (cannot be read|not the settings of a run)')
        os.remove(self.path('settings.json'))
        os.mkdir(self.path('settings.json'))
        self.refused('settings.json: cannot be read')


class Frozen(Case):
    def test_options_that_exclude_each_other(self):
        for others in (dict(augment=True), dict(decoder_first=2)):
            self.assertRegex(self.assert_user_error(Settings, freeze_encoder=True, **others),
                             '--freeze-encoder .*leave out --(augment|decoder-first)')
            Settings(**others)
        for recipe, others, expected in (('tuned', dict(freeze_encoder=True), '^--freeze-encoder .* --recipe tuned$'),
                                         ('frozen', dict(augment=True), '^--recipe frozen .* --augment$'),
                                         ('frozen', dict(decoder_first=2), '^--recipe frozen .* --decoder-first$')):
            self.assertRegex(self.assert_user_error(
                Settings, **dict(settings.RECIPES[recipe], recipe=recipe, **others)), expected)
        with self.assertRaises((UserError, dataclasses.FrozenInstanceError)):
            Settings().epochs = 3
