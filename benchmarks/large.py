#!/usr/bin/env python3
"""How start, time and memory of a training grow with the number of pictures: links to a few hundred large ones.

Each row is a whole run with the demo's slim VGG-16, in a process of its own: the times are those of reading.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import main  # first of all, since it chooses what TensorFlow is loaded with

import argparse
import json
import tempfile
import time
from unittest import mock

import numpy as np
from tqdm import tqdm

import bench
import demo
import recorder
import safety
import vgg16

SIZE = (1024, 2048)  # height, width in pixels of a picture
DIFFERENT = 200  # pictures; the others are links to them
IMAGE_SHAPE = (256, 512)
TESTING = 2


def draw(folder):
    """Draw the pictures that the others are links to, unless they are there."""
    training = os.path.join(folder, 'training')
    if os.path.exists(training):
        return
    with safety.scratch_folder(folder) as scratch, mock.patch.object(demo, 'SIZES', (SIZE,)):
        for part in ('image_2', 'gt_image_2'):
            os.makedirs(os.path.join(scratch, 'training', part))
        for number in tqdm(range(DIFFERENT), desc='Draw scenes', unit='scene', leave=False):
            demo.write_scene(os.path.join(scratch, 'training'), 'uu', number, np.random.RandomState(number), False)
        os.rename(os.path.join(scratch, 'training'), training)


def link(source, target, count):
    """A folder in KITTI's layout with so many links to the pictures of another one, and to their labels."""
    for part, name in (('image_2', 'uu_{:06d}.png'), ('gt_image_2', 'uu_road_{:06d}.png')):
        os.makedirs(os.path.join(target, part))
        for number in range(count):
            os.symlink(os.path.join(source, part, name.format(number % DIFFERENT)),
                       os.path.join(target, part, name.format(number)))


def train(data_dir, start, settings):
    """(seconds from `start` to the end of the first step, of the epoch)."""
    first, add_step = [], recorder.Recorder.add_step

    def add_and_look(*args):
        first.append(time.time() - start)
        add_step(*args)

    with mock.patch.object(recorder.Recorder, 'add_step', add_and_look), bench.quietly():
        folder = main.run(data_dir, os.path.join(data_dir, 'runs'), epochs=1, image_shape=IMAGE_SHAPE, **settings)
    with open(os.path.join(folder, 'history.jsonl')) as file:
        return first[0], json.loads(file.readline())['seconds']


def measure():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', help='where the pictures are kept that the others are links to: 1 GB')
    parser.add_argument('--pictures', type=int, nargs='+', default=[2500, 5000, 10000, 20000], metavar='N')
    parser.add_argument('--vgg', metavar='DIR', help='SavedModel to train (default: the slim one of the demo)')
    parser.add_argument('--batch-size', type=int, default=main.BATCH_SIZE, metavar='N')
    arguments = parser.parse_args()
    source = os.path.join(os.path.abspath(arguments.folder), 'training')
    os.makedirs(arguments.folder, exist_ok=True)
    draw(os.path.abspath(arguments.folder))
    print('| pictures | first step after, s | epoch, s | ms for a picture | peak memory, MB |\n' + '| --- ' * 5 + '|')
    for count in arguments.pictures:
        with tempfile.TemporaryDirectory() as data_dir:
            link(source, os.path.join(data_dir, 'data_road', 'training'), count)
            link(source, os.path.join(data_dir, 'data_road', 'testing'), TESTING)
            if arguments.vgg:
                os.symlink(os.path.abspath(arguments.vgg), os.path.join(data_dir, 'vgg'))
            else:
                vgg16.write_slim(os.path.join(data_dir, 'vgg'), seed=0)
            (first, epoch), memory = bench.in_a_process(train, data_dir, time.time(),
                                                        dict(batch_size=arguments.batch_size))
            print('| {} | {:.1f} | {:.0f} | {:.1f} | {:.0f} |'.format(count, first, epoch, epoch / count * 1e3, memory),
                  flush=True)


if __name__ == '__main__':
    measure()
