"""Scores on the pictures that are not trained on."""
import os
import time

import numpy as np

from fcn8 import distributed, progress
from fcn8.data import images
from fcn8.results import metrics

SHARE_OF_TIME = 0.1  # at most
SHOWN = 3  # overlays in TensorBoard


class Validation:
    """Scores a network on the validation pictures of some Batches, as often as a tenth of the time allows.

    segmenter: results.segmenter.Segmenter, for what the batches hold.
    batches: data.kitti.Batches, with validation pictures.
    """

    def __init__(self, segmenter, batches):
        self._segmenter, self._batches, self._is_first = segmenter, batches, True
        paths = batches.validation_share
        self._shown = {paths[index] for index in np.linspace(0, len(paths) - 1, min(SHOWN, len(paths))).astype(int)}

    def is_due(self, history, epochs):
        """Whether to score after the epoch that follows those of a history, in a training of `epochs` epochs."""
        epoch, scored = len(history) + 1, [entry for entry in history if 'validation' in entry]
        return epoch == epochs or not scored or epoch >= scored[-1]['epoch'] + scored[-1].get('validation_interval', 1)

    def run(self, training_seconds, add_overlay, after_batch):
        """Score the pictures, all processes a share each.

        Returns what that adds to an entry of the history: `validation`, the summary() of metrics' scores, and
        `validation_interval`, the number of epochs after which to score again: at first 1, since the time in which
        TensorFlow also prepares the graph says nothing of the next ones.

        training_seconds: what the training of an epoch takes.
        add_overlay: called with the name and the overlay of some of them.
        after_batch: called after each batch; what it raises ends the validation.
        """
        start = time.time()
        classes, paths = self._batches.classes, iter(self._batches.validation_share)
        scores = metrics.scores_of(classes)
        with progress.bar(desc='Validation', total=len(self._batches.validation_share), unit='picture',
                          leave=False) as bar:
            for inputs, labels in self._batches.validation_batches():
                predictions = self._segmenter(inputs)
                scores.add(predictions, labels)
                for prediction, path in zip(predictions, paths):
                    if path in self._shown:
                        picture = images.read_picture(path, self._batches.image_shape)
                        add_overlay(os.path.basename(path), classes.paint(picture, prediction))
                bar.update(len(labels))
                after_batch()
        gathered, costs = zip(*distributed.gather((scores, (time.time() - start) / max(training_seconds, 1e-9))))
        interval = 1 if self._is_first else max(1, int(np.ceil(max(costs) * (1 / SHARE_OF_TIME - 1))))
        self._is_first = False
        return dict(validation=sum(gathered, metrics.scores_of(classes)).summary(), validation_interval=interval)
