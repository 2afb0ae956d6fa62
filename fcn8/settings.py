"""Every option of a training, once: the command line and settings.json come from Settings."""
import dataclasses
import json
import os
import re
from typing import Callable, NamedTuple, Optional, Tuple

from fcn8.errors import UserError
from fcn8.files import read_json

FLOAT32_MIN, FLOAT32_MAX = 1.1754944e-38, 3.4028235e38  # the normal positive numbers


class Kind(NamedTuple):
    """What the values of a setting may be.

    convert: type of a value; for the sides of a shape, of each.
    accepts: whether a value of that type is allowed.
    needed: what a value must be, for messages.
    metavar: stands for a value in the help; for a shape one for each side.
    """

    convert: type
    accepts: Callable
    needed: str
    metavar: object

    def parse(self, text):
        """The value that a text of the command line stands for; raises ValueError."""
        try:
            return self.check(self.convert(text))
        except (ValueError, OverflowError):
            raise ValueError(f'{text!r} is not {self.needed}') from None

    def check(self, value):
        """The value, if it is allowed; raises ValueError."""
        if self.convert is float and type(value) is int and abs(value) <= FLOAT32_MAX:
            value = float(value)
        if type(value) is not self.convert or not self.accepts(value):
            raise ValueError(f'{value!r} is not {self.needed}')
        return value


# The defaults of each recipe that differ from the published ones
RECIPES = {
    'published': {},
    'frozen': dict(freeze_encoder=True, amp=True),
    'tuned': dict(decoder_first=30, learning_rate=3e-4, decay=True, l2=1e-4, epochs=16, amp=True),
}

# TensorFlow takes [ and \ in a path for a pattern, and cannot encode what is not UTF-8.
FOLDER = Kind(str, lambda path: path and not re.search('[\\[\\\\\\0\ud800-\udfff]', path),
              'a path that TensorFlow can use: UTF-8, without [ and \\', 'DIR')
FILE = Kind(str, bool, 'a path', 'FILE')
COUNT = Kind(int, lambda value: 0 < value < 2 ** 31, 'a whole number from 1 to 2147483647', 'N')
COUNT_OR_ZERO = Kind(int, lambda value: 0 <= value < 2 ** 31, 'a whole number from 0 to 2147483647', 'N')
SEED = Kind(int, lambda value: 0 <= value < 2 ** 32, 'a whole number from 0 to 4294967295', 'N')
SIDE = Kind(int, lambda value: 0 < value < 2 ** 15 and value % 32 == 0, 'a positive multiple of 32', ('H', 'W'))
POSITIVE = Kind(float, lambda value: FLOAT32_MIN <= value <= FLOAT32_MAX, 'a positive float32 number', 'X')
NOT_NEGATIVE = Kind(float, lambda value: 0 <= value <= FLOAT32_MAX, 'a non-negative float32 number', 'X')
PROBABILITY = Kind(float, lambda value: FLOAT32_MIN <= value <= 1, 'a number above 0, up to 1', 'X')
SHARE = Kind(float, lambda value: 0 <= value < 1, 'a number of at least 0 and below 1', 'X')
RECIPE = Kind(str, lambda value: value in RECIPES, 'one of ' + ', '.join(RECIPES), 'NAME')
FLAG = Kind(bool, lambda value: True, 'true or false', None)


def option_name(name):
    """The option of a setting: --batch-size of batch_size."""
    return '--' + name.replace('_', '-')


def _as_options(values):
    return ' '.join(option_name(name) + ('' if value is True else f' {value}') for name, value in values.items())


def _describe_recipes():
    return '; '.join(f'{recipe}: {_as_options(values) or "none"}' for recipe, values in RECIPES.items())


def _option(group, kind, default, text, saved=True):
    return dataclasses.field(default=default, metadata=dict(group=group, kind=kind, help=text, saved=saved))


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that a training depends on, beside its data and the versions of the packages.

    Raises UserError where a value makes no sense.
    """

    recipe: str = _option(
        'training', RECIPE, 'published',
        f'a set of defaults ({_describe_recipes()}); options that you give take precedence')

    # The published hyper-parameters
    epochs: int = _option('training', COUNT, 50, 'passes through the training pictures')
    batch_size: int = _option('training', COUNT, 5, 'pictures in a training step')
    learning_rate: float = _option('training', POSITIVE, 9e-4, 'learning rate of Adam')
    keep_prob: float = _option('training', PROBABILITY, 0.5, 'share of units that dropout keeps')
    l2: float = _option(
        'training', NOT_NEGATIVE, 1e-3, "weight of the decoder's L2 loss, half the sum of the squares of its kernels")

    # Height and width: multiples of 32, as five poolings halve them
    image_shape: Tuple[int, int] = _option(
        'data', SIDE, (160, 576), 'height and width to which pictures are resized, multiples of 32')
    data_dir: str = _option('data', FOLDER, 'data', 'folder that holds vgg and data_road')
    classes: Optional[str] = _option(
        'data', FILE, None, 'JSON file with the names and colours of other classes than background and road')
    validation: float = _option(
        'data', SHARE, 0., 'share of the training pictures, of each category, that is held out and scored; the best '
                           'epoch is then the one with the highest IoU')
    augment: bool = _option('data', FLAG, False, 'random mirroring, shifts, lighting and shadows, new in each epoch')
    cache_mb: int = _option('data', COUNT_OR_ZERO, 1024, 'memory, in MiB, for pictures that have been read, beside '
                                                         'up to nine batches; other pictures are read again in each '
                                                         'epoch')
    seed: int = _option('training', SEED, 0, 'fixes the order of the pictures, which of them are for validation, their '
                                             "augmentation, the decoder's first weights, and the scenes and the VGG-16 "
                                             'of the demo')
    decay: bool = _option('training', FLAG, False, 'warm-up and decay: the learning rate rises from 0 in the first '
                                                   'quarter of the training, and then falls to 0')
    freeze_encoder: bool = _option(
        'training', FLAG, False, 'train the decoder alone, on features of VGG-16 that are computed once and kept in '
                                 'the data folder; takes minutes on a CPU')
    decoder_first: int = _option('training', COUNT_OR_ZERO, 0, 'train the decoder alone for N epochs, as '
                                                               '--freeze-encoder does, and then everything')
    amp: bool = _option('training', FLAG, False, 'mixed precision: float16 on GPUs with tensor cores, bfloat16 on CPUs '
                                                 'that are faster in it')
    runs_dir: str = _option('results', FOLDER, 'runs', 'folder that gets a subfolder for each run', saved=False)
    resume: Optional[str] = _option(
        'results', FOLDER._replace(metavar='RUN'), None,
        'continue a run (its folder in runs/) from where it was stopped, with its own settings; --epochs may ask for '
        'more, --data-dir and --classes say where its data and its classes are now', saved=False)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), field.metadata['kind']
            if value is None and field.default is None:
                continue
            try:
                if kind is not SIDE:
                    value = kind.check(value)
                elif isinstance(value, (list, tuple)) and len(value) == 2:
                    value = tuple(map(kind.check, value))
                else:
                    raise ValueError(f'{value!r} is not a height and a width')
            except ValueError as error:
                raise UserError(f'{option_name(field.name)}: {error}') from error
            object.__setattr__(self, field.name, value)
        frozen = self._origin('freeze_encoder')
        if self.freeze_encoder and self.decoder_first:
            raise UserError(f'{frozen} trains nothing but the decoder: leave out {self._origin("decoder_first")}')
        if self.freeze_encoder and self.augment:
            raise UserError(f'{frozen} trains on features, computed once: leave out --augment')

    def _origin(self, name):
        """The option that a setting comes from: its own, or --recipe."""
        return f'--recipe {self.recipe}' if RECIPES[self.recipe].get(name) == getattr(self, name) else option_name(name)

    @property
    def vgg_path(self):
        """The folder of VGG-16's SavedModel."""
        return os.path.join(self.data_dir, 'vgg')

    @property
    def training_folder(self):
        """The folder of the training pictures."""
        return os.path.join(self.data_dir, 'data_road', 'training')

    @property
    def testing_folder(self):
        """The folder of the test pictures."""
        return os.path.join(self.data_dir, 'data_road', 'testing')

    def saved(self):
        """The dict for settings.json, equal to the one that is read from there again."""
        names = [field.name for field in dataclasses.fields(self) if field.metadata['saved']]
        return dict({name: getattr(self, name) for name in names}, image_shape=list(self.image_shape))


PUBLISHED = Settings()


def describe(saved):
    """The options of saved settings that are not those of their recipe, as text, without recipe and epochs."""
    usual = dict(PUBLISHED.saved(), **RECIPES.get(str(saved.get('recipe')), {}))
    return _as_options({name: ' '.join(map(str, value)) if isinstance(value, list) else value
                        for name, value in saved.items()
                        if name not in ('recipe', 'epochs') and value != usual.get(name)})


def resumed(folder, given):
    """The Settings of the run in `folder`, of which the given ones, a dict, replace some.

    Settings that an older version has not saved take their defaults.

    Raises UserError if the folder holds no run, if its settings make no sense, and if the given epochs are fewer.
    """
    path, saved = os.path.join(folder, 'settings.json'), read_saved(folder)['settings']
    unknown = sorted(set(saved) - {field.name for field in dataclasses.fields(Settings) if field.metadata['saved']})
    if unknown:
        raise UserError(f'{path}: "{unknown[0]}" is not a setting')
    try:
        settings = Settings(**saved, resume=folder)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    if given.get('epochs', settings.epochs) < settings.epochs:
        raise UserError(f'--epochs {given["epochs"]}: the run has {settings.epochs}. Ask for at least as many')
    return dataclasses.replace(settings, **given)


def read_saved(folder):
    """The content of settings.json of a run: the dicts `settings`, `made_with` and `about`, and the list `changes`.

    Raises UserError if the folder holds no run.
    """
    path = os.path.join(folder, 'settings.json')
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise UserError(f'{folder}: ' + ('not the folder of a run: it holds no settings.json' if os.path.isdir(folder)
                                         else 'no such folder')) from None
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: cannot be read ({error})') from error
    for name, kind in (('settings', dict), ('made_with', dict), ('about', dict), ('changes', list)):
        if not isinstance(content.get(name), kind):
            raise UserError(f'{path}: not the settings of a run: "{name}" is missing')
    if 'palette' in content['made_with']:  # an older version's name, with another name for ignored pixels
        palette = json.dumps(content['made_with'].pop('palette'))
        content['made_with']['classes'] = json.loads(palette.replace('"what does not count"', '"ignored"'))
    return content
