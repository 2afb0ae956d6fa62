"""Scores of a trained model on pictures with labels: `python main.py --evaluate FOLDER --model RUN`."""
import collections
import itertools
import json
import os

from fcn8 import progress
from fcn8.data import images, kitti, labels
from fcn8.errors import UserError
from fcn8.files import check_writable, read_json, written_whole
from fcn8.results import metrics, saved_model


def evaluate(folder, run):
    """Score a trained model on pictures with labels, in their own size, and print a table.

    folder: in KITTI's layout: image_2/um_000003.png with gt_image_2/um_road_000003.png.
    run: the folder of the run that trained the model.

    Returns {'folder': its absolute path, 'categories': {category: scores}, 'all': scores}: for each category, and for
    all of them together, a summary() of metrics and the number of pictures. It is also written to a JSON file in the
    run's folder, whose path is printed.

    Raises UserError.
    """
    pairs = kitti.pair_with_labels(folder)
    counts = collections.Counter()
    with saved_model.load(run) as model:
        # Now, rather than after the work: the name may be too long.
        check_writable(run)
        _path_of_result(run, os.path.abspath(folder))
        scores = collections.defaultdict(lambda: metrics.scores_of(model.classes))
        true = images.in_order(lambda pair: labels.read_label(pair[1], classes=model.classes), pairs)
        segmented = model.segment([path for path, _ in pairs], images.read_picture)
        for (path, _), label, (_, prediction) in progress.bar(
                zip(pairs, true, segmented), desc='Evaluate', total=len(pairs), unit='picture'):
            scores[kitti.category(path)].add(prediction, label)
            counts[kitti.category(path)] += 1
    total = sum(scores.values(), metrics.scores_of(model.classes))
    if total.summary()['pixel_accuracy'] is None:
        raise UserError('{}: all pixels of the labels are ignored. Name a folder with {}'.format(
            os.path.join(folder, 'gt_image_2'), ' and '.join(model.classes.names)))
    categories = {name: dict(pictures=counts[name], **part.summary()) for name, part in scores.items()}
    result = dict(folder=os.path.abspath(folder), categories=categories,
                  all=dict(pictures=len(pairs), **total.summary()))
    print(metrics.format_table(list(categories.items()) + [('all', result['all'])]))
    path = _path_of_result(run, result['folder'])
    with written_whole(path) as file:
        file.write(json.dumps(result, indent=2).encode())
    print(f'Scores as JSON: {path}')
    return result


def _path_of_result(run, folder):
    """The JSON file for the scores of a folder: not that of another folder with the same name."""
    for number in itertools.count(1):
        suffix = f'-{number}' if number > 1 else ''
        path = os.path.join(run, f'evaluation-{os.path.basename(folder)}{suffix}.json')
        try:
            if read_json(path).get('folder') == folder:
                return path
        except FileNotFoundError:
            return path
        except ValueError:  # damaged
            continue
