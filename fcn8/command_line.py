"""The command line: parsed before TensorFlow is loaded, so that help and mistakes show at once, and carried out."""
import argparse
import dataclasses
import os
import sys

from fcn8 import errors, launcher, memory, settings
from fcn8.errors import UserError
from fcn8.settings import Settings, option_name

VERSION = '1.0'

# The defaults of --demo, with which two minutes on two cores are enough
DEMO_SETTINGS = dict(epochs=10, batch_size=1)

# Options that take all settings from a run, and the other options that each of them may have
MODES = {'resume': {'epochs', 'data_dir', 'classes', 'processes'},
         'predict': {'model', 'save_masks', 'processes'},
         'evaluate': {'model', 'processes'}}


def _make_parser():
    parser = argparse.ArgumentParser(
        description='Train FCN-8 (VGG-16) on KITTI and paint the road on the test pictures.',
        argument_default=argparse.SUPPRESS)
    parser.add_argument('--version', action='version', version='FCN-8 road segmentation ' + VERSION)
    parser.add_argument('--debug', action='store_true', help='show where in the program an error has occurred')
    groups = {name: parser.add_argument_group(name) for name in ('data', 'training', 'results')}
    groups['training'].add_argument(
        '--processes', metavar='N', type=_parser_of(settings.COUNT),
        help='train in N processes on this machine, each on one GPU, if there are any; their ports are open to the '
             'network, without authentication (default: 1)')
    groups['data'].add_argument(
        '--demo', action='store_true',
        help='train on scenes drawn on the spot, with a slim VGG-16: needs no data, no internet connection and no GPU; '
             'defaults to --epochs {epochs} --batch-size {batch_size}, unless the recipe says otherwise'.format(
                 **DEMO_SETTINGS))
    for field in dataclasses.fields(Settings):
        kind, text = field.metadata['kind'], field.metadata['help']
        if kind is settings.FLAG:
            arguments = dict(action='store_true', help=text)
        else:
            shown = ' '.join(map(str, field.default)) if kind is settings.SIDE else field.default
            arguments = dict(type=_parser_of(kind), metavar=kind.metavar, nargs=2 if kind is settings.SIDE else None,
                             help=text if field.default is None else f'{text} (default: {shown})')
        groups[field.metadata['group']].add_argument(option_name(field.name), **arguments)
    for name, metavar, text in (
            ('--predict', 'PATH', 'paint the road on a picture, the pictures of a folder or a video, with the model of '
                                  '--model'),
            ('--evaluate', 'FOLDER', "score the model of --model on a folder in KITTI's layout, of image_2 and "
                                     'gt_image_2'),
            ('--model', 'RUN', 'folder of the run, runs/<time>, that trained the model')):
        groups['results'].add_argument(name, metavar=metavar, help=text)
    groups['results'].add_argument('--save-masks', action='store_true',
                                   help='with --predict: write the road white on black, too, or other classes in '
                                        'their colours')
    parser.error = lambda message: parser.exit(2, f'error: {message}. For the options see --help\n')
    return parser


def _parser_of(kind):
    def parse(text):
        try:
            return kind.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return parse


def begin(arguments=None):
    """parse() for the program: also checks the files, and prepares the process.

    With --processes it starts the others, and ends with them.
    """
    options = parse(arguments, check_files=True)
    if options.processes > 1 and launcher.SIZE == 1:
        from fcn8 import processes
        processes.run(options.processes)
    if options.settings and not options.settings.freeze_encoder:
        memory.keep_freed()
    return options


def parse(arguments=None, check_files=False):
    """The command line as an argparse.Namespace; mistakes end the program in one line and exit status 2.

    arguments: list of texts, by default sys.argv[1:].
    check_files: whether to check that the files named are there.

    The Namespace has: settings, the Settings of a training, None where a model is used; processes, their number;
    debug, demo, save_masks, flags; predict, evaluate, model, texts or None.
    """
    parser = _make_parser()
    given = vars(parser.parse_args(arguments))
    names = set(given)
    for mode, others in MODES.items():
        if mode in names:
            for name in sorted(names - others - {mode, 'debug'}):
                reason = ': all settings are those of the run' * hasattr(Settings, name)
                parser.error(f'--{mode} cannot be combined with {option_name(name)}{reason}')
    if max(launcher.SIZE, given.get('processes', 1)) > 1 and {'predict', 'evaluate'} & names:
        parser.error('--predict and --evaluate work with a single process only: leave out --processes, horovodrun and '
                     'TF_CONFIG')
    if given.get('processes', 1) not in (1, launcher.SIZE) and launcher.SIZE > 1:
        parser.error(f'--processes: {launcher.SIZE} have been started already')
    if 'save_masks' in names and 'predict' not in names:
        parser.error('--save-masks goes with --predict PATH')
    if ('model' in names) != bool({'predict', 'evaluate'} & names):
        parser.error('--predict PATH and --evaluate FOLDER need --model RUN, and --model needs one of them')
    options = argparse.Namespace(settings=None, **{name: given.pop(name, default) for name, default in (
        ('debug', False), ('demo', False), ('processes', 1), ('save_masks', False), ('predict', None),
        ('evaluate', None), ('model', None))})
    try:
        if options.model is not None:
            options.model = _folder_of_run(options.model)
        elif 'resume' in given:
            options.settings = settings.resumed(_folder_of_run(given.pop('resume')), given)
        else:
            recipe = settings.RECIPES[given.get('recipe', Settings.recipe)]
            options.settings = Settings(**{**(DEMO_SETTINGS if options.demo else {}), **recipe, **given})
        if check_files:
            _check_files(options)
    except UserError as error:
        parser.exit(2, 'error: {}\n'.format(' '.join(str(error).splitlines())))
    return options


def _check_files(options):
    """Raise UserError if files are missing or wrong that can be checked before TensorFlow is loaded."""
    if options.settings is None:
        return
    if options.settings.classes is not None:
        from fcn8.data.classes import read_classes
        read_classes(options.settings.classes)
    for name, folder in (('data-dir', options.settings.data_dir), ('runs-dir', options.settings.runs_dir)):
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise UserError(f'{folder}: not a folder. Name another with --{name}')
    if not options.demo and not os.path.isdir(options.settings.data_dir):
        raise UserError(f'{options.settings.data_dir}: no such folder; create it, or name another with --data-dir')


def _folder_of_run(path):
    """The folder that a link like runs/latest points to: the link changes as soon as another run begins."""
    path = os.path.normpath(path)
    if os.path.islink(path):
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    if os.path.basename(path) in ('', '.', '..'):  # neither tells the name of the run, nor where the others are
        path = os.path.abspath(path)
    try:
        return settings.FOLDER.check(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def execute(options, run):
    """Do what the command line asks for; errors end the program in one line.

    options: of parse().
    run: main.run.
    """
    if hasattr(sys.stdout, 'reconfigure'):
        # So that the lines of a long run reach a log file as they come, whatever its encoding.
        sys.stdout.reconfigure(line_buffering=True, errors='backslashreplace')
    with errors.in_one_line(_out_of_memory_hint(options.settings), options.debug):
        if options.predict is not None:
            from fcn8.results.predict import predict
            predict(options.predict, options.model, options.save_masks)
        elif options.evaluate is not None:
            from fcn8.results.evaluate import evaluate
            evaluate(options.evaluate, options.model)
        elif options.demo:
            from fcn8 import distributed
            from fcn8.data import demo
            with distributed.together():
                run(dataclasses.replace(options.settings, data_dir=demo.prepare(options.settings)))
        else:
            run(options.settings)


def _out_of_memory_hint(its_settings):
    """The options that would lower the use of memory, as text.

    its_settings: Settings of a training, None where a model is used.
    """
    if its_settings is None:
        return 'smaller pictures, or a device with more memory'
    if its_settings.resume:
        return 'a new run with a smaller --batch-size'
    return ' or '.join(option for option, can_help in (
        ('a smaller --batch-size', its_settings.batch_size > 1),
        ('a smaller --image-shape', its_settings.image_shape != Settings.image_shape), ('--amp', not its_settings.amp),
        ('--freeze-encoder', not its_settings.freeze_encoder)) if can_help) or 'a device with more memory'
