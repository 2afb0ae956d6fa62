#!/usr/bin/env python3
"""Feeds thousands of damaged files to the program's readers: each has to be read, or to end in a clear error.

Prints for each kind of file how often which came out. Exit status 1 where anything else happened.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from tf1 import tf

import argparse
import collections
import contextlib
import inspect
import io
import json
import random
import shutil
import struct
import tempfile
import traceback
import zipfile
import zlib

import numpy as np
from PIL import Image
from tqdm import tqdm

import helper
import main
import palettes
import recorder
import safety

SHAPE = (32, 64)


def damage(content, chance):
    """The bytes with some flipped, replaced, left out, put in twice, or cut off."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        start = chance.randrange(len(content) + 1)
        end = min(start + chance.choice((1, 2, 4, 64)), len(content))
        kind = chance.choice(('flip', 'flip', 'random', 'digit', 'out', 'twice', 'cut'))
        if kind == 'flip' and start < len(content):
            content[start] ^= 1 << chance.randrange(8)
        elif kind == 'random':
            content[start:end] = bytes(chance.randrange(256) for _ in range(start, end))
        elif kind == 'digit':
            content[start:end] = chance.choice((b'0', b'-9', b'1e999', b'null', b'"', b'{', b'\x00', b'\xff' * 4))
        elif kind == 'out':
            del content[start:end]
        elif kind == 'twice':
            content[start:start] = content[start:end]
        elif kind == 'cut':
            del content[start:]
    return bytes(content)


def damage_png(content, chance):
    """Damage in a chunk of a PNG, half of the times under a checksum that is right again."""
    if chance.random() < 0.5:
        return damage(content, chance)
    start, chunks = 8, []
    while start < len(content):
        length, = struct.unpack('>I', content[start:start + 4])
        chunks.append((content[start + 4:start + 8], content[start + 8:start + 8 + length]))
        start += 12 + length
    number = chance.randrange(len(chunks) + 1)
    name = chance.choice((b'tRNS', b'gAMA', b'cHRM', b'iCCP', b'PLTE', b'eXIf', b'pHYs', b'zTXt', b'acTL', b'fdAT'))
    chunks[number:number + 1] = [(name, bytes(9)) if number == len(chunks) else chunks[number]] + chance.choice(
        ([], [(name, bytes(chance.randrange(256) for _ in range(chance.choice((0, 1, 8, 32)))))]))
    number = chance.randrange(len(chunks))
    chunks[number] = chunks[number][0], damage(chunks[number][1], chance)
    return content[:8] + b''.join(
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        for name, data in chunks)


def damage_json(content, chance):
    """Half of the times, another value in place of one that is there."""
    if chance.random() < 0.5:
        return damage(content, chance)
    content = json.loads(content)
    places = [(content, key) for key in content]
    for container, key in places:
        inner = container[key]
        if isinstance(inner, (dict, list)):
            places += [(inner, key) for key in (inner if isinstance(inner, dict) else range(len(inner)))]
    container, key = chance.choice(places)
    container[key] = chance.choice((None, True, False, -1, 0, 2 ** 70, 1e300, 'x', '', '\0', '../..', '-', '=True',
                                    '\ud800', [], {}, [[]], {'x': 1}))
    return json.dumps(content).encode()


# Each kind of file: a folder is made for it; then (path of the file that is damaged, reader of the folder)


def pictures(folder, suffix, image):
    """A training folder of two pairs, one of whose pictures is the given one."""
    for name, picture in (('um_000000' + suffix, image), ('um_000001.png', image.convert('RGB'))):
        os.makedirs(os.path.join(folder, 'image_2'), exist_ok=True)
        picture.save(os.path.join(folder, 'image_2', name))
    label = np.full(SHAPE + (3,), palettes.BACKGROUND, np.uint8)
    label[:, 20:] = palettes.ROAD
    os.makedirs(os.path.join(folder, 'gt_image_2'))
    for number in range(2):
        Image.fromarray(label).save(os.path.join(folder, 'gt_image_2', 'um_road_{:06d}.png'.format(number)))

    def read():
        for images, labels in helper.gen_batch_function(folder, SHAPE)(2):
            assert images.shape == (2,) + SHAPE + (3,) and images.dtype == np.uint8
            assert labels.shape == (2,) + SHAPE + (2,) and not labels.all(axis=-1).any()
    return os.path.join(folder, 'image_2', 'um_000000' + suffix), read


def labels(folder, suffix, image):
    _, read = pictures(folder, suffix, image)
    return os.path.join(folder, 'gt_image_2', 'um_road_000000.png'), read


def run(folder):
    """A run with two checkpoints of one small variable each; gives its folder, and a function that resumes it."""
    settings = {name: parameter.default for name, parameter in inspect.signature(main.run).parameters.items()
                if name not in ('runs_dir', 'resume')}

    def at(path, work):
        with tf.Graph().as_default(), tf.Session() as sess:
            variable = tf.get_variable('x', [1000], initializer=tf.zeros_initializer())
            sess.run(variable.initializer)
            with recorder.Recorder(folder, settings, {'TensorFlow': tf.__version__}, {}, folder=path) as record:
                restored = record.begin(sess, tf.constant(0.5))
                work(record, sess, restored)
                return record.folder

    def train(record, sess, restored):
        for _ in record.epochs(2):
            record.add_step(sess, 1., 1)
            record.add_epoch(sess, validation={'road_iou': 0.5, 'max_f': 0.5})
            record.save(sess)
    path = at(None, train)

    def check(record, sess, restored):
        assert restored and len(record.history) <= 2

    def resume():
        main.resumed_settings(path)
        at(path, check)
    return path, resume


def in_run(name):
    def make(folder):
        path, resume = run(folder)
        return os.path.join(path, name), resume
    return make


def archive(folder):
    path = os.path.join(folder, 'x.zip')
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        for number in range(3):
            file.writestr('data_road/{}'.format(number), os.urandom(100))

    def read():
        os.mkdir(os.path.join(folder, 'out'))
        try:
            helper._unpack(path, os.path.join(folder, 'out'))
        except zipfile.BadZipFile as error:
            raise safety.UserError(error)
        finally:
            shutil.rmtree(os.path.join(folder, 'out'))
            assert os.listdir(folder) == ['x.zip']
    return path, read


def kinds():
    picture = Image.fromarray(np.random.RandomState(0).randint(256, size=SHAPE + (3,)).astype(np.uint8))
    grey = np.asarray(picture.convert('L')).astype(np.uint16) * 256
    checkpoint = os.path.join('checkpoints', 'epoch-00002-picture-000000')
    return [('picture, PNG', lambda folder: pictures(folder, '.png', picture)),
            ('picture, PNG with palette', lambda folder: pictures(folder, '.png', picture.quantize(16))),
            ('picture, PNG of 16 bits', lambda folder: pictures(folder, '.png', Image.fromarray(grey))),
            ('picture, JPEG', lambda folder: pictures(folder, '.jpg', picture)),
            ('label', lambda folder: labels(folder, '.png', picture)),
            ('settings.json', in_run('settings.json')),
            ('checkpoint, index', in_run(os.path.join(checkpoint, 'weights.index'))),
            ('checkpoint, weights', in_run(os.path.join(checkpoint, 'weights.data-00000-of-00001'))),
            ('checkpoint, state.json', in_run(os.path.join(checkpoint, 'state.json'))),
            ('checkpoint, best weights', in_run(os.path.join('checkpoints', 'best.npz'))),
            ('archive', archive)]


def give_digest(path):
    """As somebody would who wants to be let in."""
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        with open(path) as file:
            content = json.load(file)
        content['digest'] = recorder._digest(os.path.dirname(path), content['state'])
        with open(path, 'w') as file:
            json.dump(content, file)


HOW = {'.png': damage_png, '.json': damage_json}


def fuzz(make, rounds, chance):
    """Counter of what came out, and the traces of what must not."""
    found, wrong = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        place, sound = os.path.join(folder, 'place'), os.path.join(folder, 'sound')
        os.mkdir(place)
        with contextlib.redirect_stdout(io.StringIO()):
            path, read = make(place)
        with open(path, 'rb') as file:
            content = file.read()
        shutil.copytree(place, sound)
        for _ in range(rounds):
            shutil.rmtree(place)
            shutil.copytree(sound, place)
            with open(path, 'wb') as file:
                file.write(HOW.get(os.path.splitext(path)[1], damage)(content, chance))
            if path.endswith('state.json') and chance.random() < 0.5:
                give_digest(path)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    read()
                found['read'] += 1
            except safety.UserError as error:
                found['a clear error'] += 1
                if '\n' in str(error):
                    wrong.append(str(error))
            except Exception:
                found['something else'] += 1
                wrong.append(traceback.format_exc())
    return found, wrong


def main_fuzz():
    parser = argparse.ArgumentParser(description='Feed damaged files to the readers of the program.')
    parser.add_argument('--rounds', type=int, default=500, metavar='N', help='damaged files of each kind')
    parser.add_argument('--seed', type=int, default=0, metavar='N')
    options = parser.parse_args()
    chance, all_wrong = random.Random(options.seed), []
    for name, make in tqdm(kinds(), unit='kind', leave=False, disable=None):
        found, wrong = fuzz(make, options.rounds, chance)
        tqdm.write('{}: {}'.format(name, ', '.join('{} {}'.format(count, what) for what, count in found.most_common())))
        all_wrong += wrong
    for trace in all_wrong[:5]:
        print(trace)
    sys.exit(1 if all_wrong else 0)


if __name__ == '__main__':
    main_fuzz()
