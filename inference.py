"""A trained network as a SavedModel of its own, and its use: for pictures, for videos, for scores.

The model has the tag `serve` and one signature, `serving_default`: from `pictures`, uint8 [n, h, w, 3], red green blue,
of any size, to `road_probability`, float32 [n, h, w]. It has neither variables nor dropout; TensorFlow 1.15 and 2.21
load each other's.
"""
import collections
import contextlib
import itertools
import json
import os
import re

import imageio.v2 as imageio
import numpy as np
from tqdm import tqdm

import helper
import metrics
import safety
from tf1 import tf

BATCH_PIXELS = 4e6  # of pictures that go through the network at once, unless it is one: 8 of KITTI's have as many
PICTURE = r'\.(png|jpe?g)$'


# The model


def export(sess, image_input, keep_prob, logits, path, image_shape):
    """Write the network of a session as a SavedModel, whole or not at all, in the place of one that is there.

    image_input, keep_prob: the tensors that the network is fed with, float32 [n, h, w, 3] and [].
    logits: float32 [n*h*w, 2] (background, road).
    path: the folder to write; its parent is there.
    image_shape: (height, width) in pixels of what the network has been trained on, to which the model resizes.

    Raises safety.UserError where it cannot be written.
    """
    softmax = helper.road_probability(logits)
    network = tf.graph_util.convert_variables_to_constants(
        sess, without_dropout(sess.graph, image_input), [softmax.op.name])
    with tf.Graph().as_default(), tf.Session() as new_sess:
        pictures = tf.placeholder(tf.uint8, [None, None, None, 3], name='pictures')
        resized = tf.round(_resize(tf.cast(pictures, tf.float32), image_shape))  # whole numbers, as in the training
        probability, = tf.import_graph_def(network, {image_input.name: resized, keep_prob.name: tf.constant(1.)},
                                           [softmax.name], name='network')
        probability = tf.reshape(probability[:, 1], [-1, image_shape[0], image_shape[1], 1])
        probability = _resize(probability, tf.shape(pictures)[1:3])[..., 0]
        signature = tf.saved_model.signature_def_utils.predict_signature_def(
            {'pictures': pictures}, {'road_probability': tf.identity(probability, name='road_probability')})
        _write(new_sess, signature, path)


def _resize(pictures, shape):
    """Bilinear, and without aliasing where it makes them smaller: as Pillow does it, which makes the batches."""
    factors = tf.cast(shape, tf.float32) / tf.cast(tf.shape(pictures)[1:3], tf.float32)
    return tf.raw_ops.ScaleAndTranslate(images=pictures, size=shape, scale=factors, translation=tf.zeros([2]),
                                        kernel_type='triangle', antialias=True)


def without_dropout(graph, image_input):
    """The graph as a tf.GraphDef in which what dropout multiplies takes the place of the product.

    Dropout is recognised by what it does: it joins what is computed from the picture with random numbers that are not,
    the picture's shape aside.
    """
    picture = _downstream(image_input.op)
    random = set().union(*(_downstream(op) for op in graph.get_operations() if op.type == 'RandomUniform')) - picture
    instead = {}
    for op in graph.get_operations():
        varied = [tensor for tensor in op.inputs if tensor.op in picture]
        if len(varied) == 1 and any(tensor.op in random for tensor in op.inputs):
            instead[op.name] = varied[0].name
    graph_def = graph.as_graph_def()
    for node in graph_def.node:
        for index, name in enumerate(node.input):
            while re.sub(':0$', '', name) in instead:
                name = instead[re.sub(':0$', '', name)]
            node.input[index] = name
    return graph_def


def _downstream(start):
    """The operations that are computed from an operation's values, not only from their shape."""
    found, waiting = {start}, [start]
    while waiting:
        for tensor in waiting.pop().outputs:
            new = {op for op in tensor.consumers() if op.type not in ('Shape', 'ShapeN', 'Size', 'Rank')} - found
            found |= new
            waiting += new
    return found


def _write(sess, signature, path):
    folder, name = os.path.split(path)
    try:
        with safety.scratch_folder(folder) as scratch:
            builder = tf.saved_model.builder.SavedModelBuilder(os.path.join(scratch, name))
            # Without what an older version might not know and does not need.
            builder.add_meta_graph_and_variables(sess, ['serve'], {'serving_default': signature},
                                                 strip_default_attrs=True)
            builder.save()
            if os.path.exists(path):
                os.rename(path, os.path.join(scratch, 'old'))
            os.rename(os.path.join(scratch, name), path)
    except (OSError, tf.errors.OpError) as error:
        raise safety.UserError('{}: the model cannot be written ({}). Make room there, and the folder writable'.format(
            path, safety.reason(error)))


@contextlib.contextmanager
def load(run):
    """Yields the network that the run in this folder has trained: a function of pictures, uint8 [n, h, w, 3].

    It returns the probability of road, float32 [n, h, w].

    Raises safety.UserError where there is no such model.
    """
    path = os.path.join(run, 'model')
    if not os.path.isdir(path):
        raise safety.UserError('{}: no trained model: a run leaves the folder `model` when it ends. Name another, or '
                               'finish this one with --resume'.format(run))
    with tf.Graph().as_default(), tf.Session() as sess:
        try:
            signature = tf.saved_model.loader.load(sess, ['serve'], path).signature_def['serving_default']
            pictures, probability = (sess.graph.get_tensor_by_name(info.name) for info in (
                signature.inputs['pictures'], signature.outputs['road_probability']))
        except tf.errors.ResourceExhaustedError:
            raise
        except Exception as error:  # what damaged files make TensorFlow raise depends on where the damage is
            raise safety.UserError('{}: not the model of a run, or damaged ({}). Name another run, or train '
                                   'again'.format(path, safety.reason(error)))
        sess.graph.finalize()
        yield lambda batch: sess.run(probability, {pictures: batch})


def _segment(model, pictures):
    """Yield (picture, probability) of pictures of any sizes, as many at once as are of one size and not too large."""
    for _, group in itertools.groupby(pictures, key=np.shape):
        for first in group:
            count = min(helper.INFERENCE_BATCH, max(1, int(BATCH_PIXELS / first[..., 0].size)))
            batch = [first] + list(itertools.islice(group, count - 1))
            for picture, probability in zip(batch, model(np.array(batch))):
                yield picture, probability


# Scores


def evaluate(folder, run):
    """Score a trained model on pictures with labels, in their own size, and print a table.

    folder: in KITTI's layout: image_2/um_000003.png with gt_image_2/um_road_000003.png.
    run: the folder of the run that trained the model.

    Returns {category: {name: score}}, with `all` of them together, as metrics.RoadScores.summary() gives it and with
    the number of pictures; it is also written to the JSON file whose path is printed, in the run's folder.

    Raises safety.UserError.
    """
    pairs = helper.pair_with_labels(folder)
    scores, counts = collections.defaultdict(metrics.RoadScores), collections.Counter()
    with load(run) as model:
        pictures = helper.in_order(lambda pair: helper.read_picture(pair[0]), pairs)
        for (path, label), (_, probability) in zip(pairs, tqdm(_segment(model, pictures), desc='Evaluate',
                                                               total=len(pairs), unit='picture')):
            scores[helper.category(path)].add(probability, helper.read_label(label))
            counts[helper.category(path)] += 1
    scores['all'], counts['all'] = sum(scores.values(), metrics.RoadScores()), len(pairs)
    table = {name: dict(pictures=counts[name], **part.summary()) for name, part in scores.items()}
    print(metrics.format_table(table))
    path = os.path.join(run, 'evaluation-{}.json'.format(os.path.basename(os.path.abspath(folder))))
    with safety.written_whole(path) as file:
        file.write(json.dumps(dict(folder=folder, scores=table), indent=2).encode())
    print('The same as JSON: {}'.format(path))
    return table


# Overlays


def predict(path, run, save_masks=False):
    """Paint the road green on a picture, the pictures of a folder, or a video, in their own size.

    path: a PNG or JPEG picture, a folder of such, or a video.
    run: the folder of the run that trained the model; the overlays go to its folder `predicted`.
    save_masks: write the road, white on black, as PNGs to the run's folder `masks`, too.

    Returns the path of the overlay, or of the folder of the overlays.

    Raises safety.UserError.
    """
    if not os.path.exists(path):
        raise safety.UserError('{}: no such picture, folder or video'.format(path))
    name = os.path.basename(os.path.abspath(path))
    is_folder, is_picture = os.path.isdir(path), re.search(PICTURE, name, re.IGNORECASE)
    stem = name if is_folder else os.path.splitext(name)[0]
    output, masks = (os.path.join(run, kind) for kind in ('predicted', 'masks'))
    with load(run) as model:
        if is_folder or not is_picture:
            masks = os.path.join(masks, stem)
        if is_folder:
            output = os.path.join(output, stem)
            _predict_pictures(model, helper.list_pictures(path, ''), output, save_masks and masks)
        elif is_picture:
            _predict_pictures(model, [path], output, save_masks and masks)
            output = os.path.join(output, stem + '.png')
        else:
            output = os.path.join(output, stem + '.mp4')
            _predict_video(model, path, output, save_masks and masks)
    print('Road painted green: {}'.format(output))
    if save_masks:
        print('Road white on black: {}'.format(masks))
    return output


def _predict_pictures(model, paths, output, masks):
    """Write the overlays of pictures to the folder `output`, and their masks to the folder `masks`, if it is one."""
    def painted():
        pictures = helper.in_order(helper.read_picture, paths)
        for path, (picture, probability) in zip(paths, _segment(model, pictures)):
            _make_folders(output, masks)
            name = os.path.splitext(os.path.basename(path))[0] + '.png'
            yield os.path.join(output, name), helper.paint(picture, probability)
            if masks:
                yield os.path.join(masks, name), _mask(probability)

    helper.write_pictures(painted(), len(paths) * (2 if masks else 1))


def _predict_video(model, path, output, masks):
    """Write the overlays of a video as the video `output`, whole or not at all, and its frames' masks to `masks`."""
    def frames():
        try:
            yield from reader
        except (OSError, RuntimeError, IndexError) as error:
            raise _no_video(path, error)

    try:
        # Of a playlist, ffmpeg would fetch what it names.
        reader = imageio.get_reader(path, format='FFMPEG', input_params=['-protocol_whitelist', 'file'])
    except (OSError, RuntimeError) as error:
        raise _no_video(path, error)
    _make_folders(os.path.dirname(output), masks)
    with reader, safety.scratch_folder(os.path.dirname(output)) as scratch:
        meta, part = reader.get_meta_data(), os.path.join(scratch, 'video.mp4')
        # Colours at half the resolution, which all players know, need even numbers of pixels.
        colours = 'yuv444p' if any(side % 2 for side in meta['size']) else 'yuv420p'
        total = int(round(meta['duration'] * meta['fps'])) or None
        try:
            with imageio.get_writer(part, format='FFMPEG', fps=meta['fps'], quality=8, pixelformat=colours,
                                    macro_block_size=1, ffmpeg_log_level='error') as writer:
                segmented = tqdm(_segment(model, frames()), desc='Paint', total=total, unit='frame')
                for number, (picture, probability) in enumerate(segmented):
                    writer.append_data(helper.paint(picture, probability))
                    if masks:
                        helper.write_picture(os.path.join(masks, '{:06d}.png'.format(number)), _mask(probability))
            os.replace(part, output)
        except OSError as error:
            raise safety.UserError('{}: cannot be written ({}). Make room there, and the folder writable'.format(
                output, safety.reason(error)))


def _no_video(path, error):
    last = (str(error).strip().splitlines() or [repr(error)])[-1]
    return safety.UserError('{}: neither a PNG or JPEG picture, nor a folder of such, nor a video that ffmpeg can '
                            'read ({})'.format(path, last))


def _mask(probability):
    return (probability > 0.5).astype(np.uint8) * 255


def _make_folders(*folders):
    for folder in filter(None, folders):
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise safety.UserError('{}: cannot be made ({}). Make the place writable'.format(folder, error.strerror))
