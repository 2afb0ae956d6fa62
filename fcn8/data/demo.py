"""The demo: scenes drawn on the spot and a slim VGG-16, so that the program runs without any data."""
import os

from fcn8 import distributed
from fcn8.data import scenes, vgg16
from fcn8.files import locked

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
    data_road, vgg = os.path.join(folder, 'data_road'), os.path.join(folder, 'vgg')
    if distributed.is_first_on_machine() and not (os.path.exists(data_road) and os.path.exists(vgg)):
        os.makedirs(folder, exist_ok=True)
        with locked(folder, wait=True):  # another run may be about to write the same
            if not os.path.exists(data_road):
                scenes.write_scenes(data_road, settings.seed, TRAINING, TESTING, with_classes)
            if not os.path.exists(vgg):
                vgg16.write_slim(vgg, settings.seed)
    distributed.gather(None)  # until then the others wait
    return folder
