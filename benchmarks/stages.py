#!/usr/bin/env python3
"""Draws what each stage of a trained network sees in a picture; docs/fcn8.md explains what it shows.

    python benchmarks/stages.py runs/latest data/demo/data_road/testing/image_2/um_000000.png docs/stages.png

It writes two files: here docs/stages.png, with a row for each of the layers 7, 4 and 3, and docs/stages-short.png, with
picture, probability and overlay alone. The network is that of the run's folder `model`.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from fcn8.tf1 import tf

import argparse

import matplotlib
matplotlib.use('Agg')  # writes files and needs no screen
import numpy as np
from matplotlib import pyplot

from fcn8 import errors
from fcn8.data import images
from fcn8.files import written_whole
from fcn8.results import saved_model

# Of main.layers, in the exported graph: the scores of layers 7, 4 and 3, and what they are once added to those above
LAYERS = 7, 4, 3
SCORES = [f'network/decoder/{name}/BiasAdd:0' for name in ('conv2d', 'conv2d_1', 'conv2d_2')]
SUMS = ['network/decoder/Add:0', 'network/decoder/Add_1:0']
UPSAMPLED, SOFTMAX = 'network/decoder/conv2d_transpose_2/BiasAdd:0', 'network/Softmax:0'


def compute(run, path):
    """What the network of a run sees in the picture `path`: rows of three (title, image), the result first.

    An image is uint8 [h, w, 3], or [h, w], or float32 [h, w] for scores, those of the last class; None where there is
    none to show.

    Raises UserError if there is no such network or picture.
    """
    picture = images.read_picture(path)
    with saved_model.load(run) as model:
        classes, sess = model.classes, tf.get_default_session()
        (_, prediction), = model.segment([picture])
        title = classes.output.replace('_', ' ')
        rows = [[('picture', picture), (title, classes.draw(prediction)),
                 ('overlay', classes.paint(picture, prediction))]]
        feed = {'pictures:0': picture[np.newaxis]}
        try:
            scores, sums, upsampled = sess.run([SCORES, SUMS, UPSAMPLED], feed)
        except (KeyError, ValueError) as error:
            raise errors.UserError(f'{run}: its decoder is not the one of main.py. Name another run') from error
        for number, (layer, score, total) in enumerate(zip(LAYERS, scores, [None] + sums), start=1):
            # The decoder is linear: without the finer layers' scores, what comes out is the share of those so far.
            without = dict(zip(SCORES[number:], map(np.zeros_like, scores[number:])))
            softmax = sess.run(SOFTMAX, {**feed, **without})
            prediction = softmax[:, 1] if classes.is_road else softmax.argmax(axis=-1)
            size = '{}x{}'.format(*score.shape[1:3])
            rows.append([(f'layer {layer}: scores, {size}', score[0, ..., -1]),
                         (f'added to those above, {size}', None if total is None else total[0, ..., -1]),
                         (f'{title} with layer ' + ' + '.join(map(str, LAYERS[:number])),
                          classes.draw(prediction.reshape(upsampled.shape[1:3])))])
    return rows


def draw(path, rows):
    """Write rows of (title, image) as a PNG."""
    figure, axes = pyplot.subplots(len(rows), 3, figsize=(12, 1.4 * len(rows)), squeeze=False, constrained_layout=True)
    for axis, (title, image) in zip(axes.flat, sum(rows, [])):
        axis.axis('off')
        if image is not None:
            height, width = rows[0][0][1].shape[:2]
            grey = dict(cmap='gray', vmin=0, vmax=255) if image.dtype == np.uint8 else {}
            axis.imshow(image, extent=(0, width, height, 0), **grey)
            axis.set_title(title, fontsize=10)
    with written_whole(path) as file:
        figure.savefig(file, format='png', dpi=100)
    pyplot.close(figure)


if __name__ == '__main__':
    PARSER = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    PARSER.add_argument('run', help='folder of a run that has ended')
    PARSER.add_argument('picture', help='PNG or JPEG')
    PARSER.add_argument('output', nargs='?', default='stages.png', help='PNG to write (default: stages.png)')
    ARGUMENTS = PARSER.parse_args()
    with errors.in_one_line('a smaller picture'):
        ROWS = compute(ARGUMENTS.run, ARGUMENTS.picture)
        NAME, EXTENSION = os.path.splitext(ARGUMENTS.output)
        draw(ARGUMENTS.output, ROWS)
        draw(f'{NAME}-short{EXTENSION}', ROWS[:1])
