"""The demo: scenes drawn on the spot and a slim VGG-16, so that the program runs without any data."""
import os

from fcn8 import distributed
from fcn8.data import scenes, vgg16

TRAINING, TESTING = 60, 24  # numbers of scenes


def prepare(settings):
    """Draw the scenes and write the VGG-16, unless they are there; with --classes the labels are those of the classes.

    settings: settings.Settings.

    Of several processes, the first of each machine does so.

    Returns their folder, a data_dir: data_dir/demo, or with other classes or another seed data_dir/demo-classes-<seed>.
    """
    with_classes = settings.classes is not None
    folder = os.path.join(settings.data_dir, 'demo' + '-classes' * with_classes + (
        f'-{settings.seed}' if settings.seed else ''))
    if distributed.is_first_on_machine():
        _write_missing(folder, settings, with_classes)
    distributed.gather(None)  # until then the others wait
    return folder


def _write_missing(folder, settings, with_classes):
    os.makedirs(folder, exist_ok=True)
    for name, write in (
            ('data_road', lambda path: scenes.write_scenes(path, settings.seed, TRAINING, TESTING, with_classes)),
            ('vgg', lambda path: vgg16.write_slim(path, settings.seed))):
        path = os.path.join(folder, name)
        try:
            if not os.path.exists(path):
                write(path)
        except OSError:
            if not os.path.exists(path):  # otherwise another run was faster, and wrote the same
                raise
