"""Scores on the pictures that are not trained on."""
import os

import numpy as np

from fcn8 import distributed, progress
from fcn8.data import images
from fcn8.results import metrics

SHARE_OF_TIME = 0.1  # at most
# The time for scoring a picture, relative to training on it: one pass forward, none backward. On features, where the
# network takes next to no time, the histograms count: this has been measured.
COST, COST_ON_FEATURES = 1 / 3, 1.6
SHOWN = 3  # overlays in TensorBoard


class Validation:
    """Scores a network on the validation pictures of some Batches, as often as a tenth of the time allows.

    segmenter: results.segmenter.Segmenter, for what the batches hold.
    batches: data.kitti.Batches, with validation pictures.
    """

    def __init__(self, segmenter, batches):
        self._segmenter, self._batches = segmenter, batches
        cost = COST if batches.features is None else COST_ON_FEATURES
        share = cost * len(batches.validation_pictures) / batches.pictures
        self._interval = max(1, int(np.ceil(share * (1 / SHARE_OF_TIME - 1))))
        paths = batches.validation_share
        self._shown = {paths[index] for index in np.linspace(0, len(paths) - 1, min(SHOWN, len(paths))).astype(int)}

    def is_due(self, epoch, epochs):
        """Whether to score after this epoch, of so many."""
        return epoch % self._interval == 0 or epoch == epochs

    def run(self, add_overlay, after_batch):
        """Score the pictures, all processes a share each; returns the summary() of metrics' scores.

        add_overlay: called with the name and the overlay of some of them.
        after_batch: called after each batch; what it raises ends the validation.
        """
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
        return sum(distributed.gather(scores), metrics.scores_of(classes)).summary()
