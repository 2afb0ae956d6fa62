"""A trained network as a SavedModel of its own, and its use: for pictures, for videos, for scores.

The model has the tag `serve` and one signature, `serving_default`: from `pictures`, uint8 [n, h, w, 3], red green blue,
of any size, to `road_probability`, float32 [n, h, w]; with a palette, which is in classes.json beside it, to
`class_probabilities`, float32 [n, h, w, classes]. It has neither variables nor dropout; TensorFlow 1.15 and 2.21 load
each other's.
"""
import collections
import contextlib
import itertools
import json
import logging
import os
import re

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from tqdm import tqdm

import helper
import metrics
import palettes
import safety
from tf1 import tf

BATCH_PIXELS = 4e6  # of pictures that go through the network at once, unless it is one: 8 of KITTI's have as many

# It warns of videos that were filmed upright, which it turns.
logging.getLogger('imageio.plugins.ffmpeg').setLevel(logging.ERROR)


# The model


def export(sess, image_input, keep_prob, logits, path, image_shape, palette=palettes.PUBLISHED):
    """Write the network of a session as a SavedModel, whole or not at all, in the place of one that is there.

    image_input, keep_prob: the tensors that the network is fed with, float32 [n, h, w, 3] and [].
    logits: float32 [n*h*w, classes].
    path: the folder to write; its parent is there.
    image_shape: (height, width) in pixels of what the network has been trained on, to which the model resizes.
    palette: of the classes.

    Raises safety.UserError where it cannot be written.
    """
    softmax = helper.softmax_of(logits)
    network = tf.graph_util.convert_variables_to_constants(
        sess, without_dropout(sess.graph, image_input), [softmax.op.name])
    with tf.Graph().as_default(), tf.Session() as new_sess:
        pictures = tf.placeholder(tf.uint8, [None, None, None, 3], name='pictures')
        resized = tf.round(_resize(tf.cast(pictures, tf.float32), image_shape))  # whole numbers, as in the training
        inputs = {image_input: resized, keep_prob: tf.constant(1.)}
        needed = {node.name for node in network.node}  # without dropout, keep_prob may not be
        softmax, = tf.import_graph_def(
            network, {tensor.name: value for tensor, value in inputs.items() if tensor.op.name in needed},
            [softmax.name], name='network')
        del network  # as large as the weights
        probability = palette.probability(softmax)
        channels = 1 if probability.shape.ndims == 1 else len(palette)
        probability = tf.reshape(probability, [-1, image_shape[0], image_shape[1], channels])
        # Rounding in the resizing can exceed 1.
        probability = tf.clip_by_value(_resize(probability, tf.shape(pictures)[1:3]), 0., 1.)
        probability = tf.identity(probability[..., 0] if channels == 1 else probability, name=palette.output)
        signature = tf.saved_model.signature_def_utils.predict_signature_def(
            {'pictures': pictures}, {palette.output: probability})
        _write(new_sess, signature, path, palette)


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


def _write(sess, signature, path, palette):
    folder, name = os.path.split(path)
    try:
        with safety.scratch_folder(folder) as scratch:
            builder = tf.saved_model.builder.SavedModelBuilder(os.path.join(scratch, name))
            # Without what an older version might not know and does not need.
            builder.add_meta_graph_and_variables(sess, ['serve'], {'serving_default': signature},
                                                 strip_default_attrs=True)
            builder.save()
            if palette is not palettes.PUBLISHED:
                with open(os.path.join(scratch, name, 'classes.json'), 'w') as file:
                    json.dump(palette.description, file, indent=2)
            if os.path.exists(path):
                os.rename(path, os.path.join(scratch, 'old'))
            os.rename(os.path.join(scratch, name), path)
    except (OSError, tf.errors.OpError) as error:
        raise safety.UserError('{}: the model cannot be written ({}). Make room there, and the folder writable'.format(
            path, safety.reason(error)))


@contextlib.contextmanager
def load(run):
    """Yields the network that the run in this folder has trained, and its palette.

    The network is a function of pictures, uint8 [n, h, w, 3]; it returns the palette's probability, float32: of road
    [n, h, w], of other classes [n, h, w, classes].

    Raises safety.UserError where there is no such model.
    """
    path = os.path.join(run, 'model')
    if not os.path.isdir(path):
        raise safety.UserError('{}: no trained model: a run leaves the folder `model` when it ends. Name another, or '
                               'finish this one with --resume'.format(run))
    its_classes = os.path.join(path, 'classes.json')
    palette = palettes.read(its_classes) if os.path.exists(its_classes) else palettes.PUBLISHED
    # TensorFlow's graph optimiser copies the constants, which are the weights, over and over.
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Graph().as_default(), tf.Session(config=config) as sess:
        try:
            signature = tf.saved_model.loader.load(sess, ['serve'], path).signature_def['serving_default']
            if palette.output not in signature.outputs:
                raise ValueError('no {}: is {} there, and right?'.format(palette.output, its_classes))
            pictures, probability = (sess.graph.get_tensor_by_name(info.name) for info in (
                signature.inputs['pictures'], signature.outputs[palette.output]))
            if len(probability.shape) == 4 and probability.shape.as_list()[-1] != len(palette):
                raise ValueError('its classes are not those of {}'.format(its_classes))
        except tf.errors.ResourceExhaustedError:
            raise
        except Exception as error:  # what damaged files make TensorFlow raise depends on where the damage is
            raise safety.UserError('{}: not the model of a run, or damaged ({}). Name another run, or train '
                                   'again'.format(path, safety.reason(error)))
        sess.graph.finalize()
        yield lambda batch: sess.run(probability, {pictures: batch}), palette


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

    Returns {'folder': folder, 'categories': {category: scores}, 'all': scores}: for each category, and for all of them
    together, what metrics' summary() gives and the number of pictures. It is also written to the JSON file
    whose path is printed, in the run's folder.

    Raises safety.UserError.
    """
    pairs = helper.pair_with_labels(folder)
    counts = collections.Counter()
    with load(run) as (model, palette):
        scores = collections.defaultdict(palette.scores)
        pictures = helper.in_order(lambda pair: helper.read_picture(pair[0]), pairs)
        for (path, label), (_, probability) in zip(pairs, tqdm(_segment(model, pictures), desc='Evaluate',
                                                               total=len(pairs), unit='picture')):
            scores[helper.category(path)].add(probability, helper.read_label(label, palette=palette))
            counts[helper.category(path)] += 1
    total = sum(scores.values(), palette.scores())
    if total.summary()['pixel_accuracy'] is None:
        raise safety.UserError('{}: no pixel of the labels counts. Name a folder with {}'.format(
            os.path.join(folder, 'gt_image_2'), ' and '.join(palette.names)))
    categories = {name: dict(pictures=counts[name], **part.summary()) for name, part in scores.items()}
    result = dict(folder=folder, categories=categories, all=dict(pictures=len(pairs), **total.summary()))
    print(metrics.format_table(list(categories.items()) + [('all', result['all'])]))
    path = os.path.join(run, 'evaluation-{}.json'.format(os.path.basename(os.path.abspath(folder))))
    with safety.written_whole(path) as file:
        file.write(json.dumps(result, indent=2).encode())
    print('The same as JSON: {}'.format(path))
    return result


# Overlays


def predict(path, run, save_masks=False):
    """Paint the road green on a picture, the pictures of a folder, or a video, in their own size; or other classes.

    path: a PNG or JPEG picture, a folder of such, or a video.
    run: the folder of the run that trained the model; the overlays go to its folder `predicted`.
    save_masks: write the road, white on black, or the classes in their colours, as PNGs to the run's folder `masks`,
    too.

    Returns the path of the overlay, or of the folder of the overlays. They appear when all are there, and replace what
    had this path.

    Raises safety.UserError.
    """
    is_folder, is_picture = os.path.isdir(path), re.search(r'\.(png|jpe?g)$', path, re.IGNORECASE)
    if not (is_folder or os.path.isfile(path)):
        raise safety.UserError('{}: no such picture, folder or video'.format(path))
    name = os.path.basename(os.path.abspath(path))
    with load(run) as (model, palette), safety.scratch_folder(run) as scratch:
        overlays, masks = os.path.join(scratch, 'predicted'), os.path.join(scratch, 'masks') if save_masks else None
        if is_folder:
            _predict_pictures(model, palette, helper.list_pictures(path, ''), os.path.join(overlays, name),
                              masks and os.path.join(masks, name))
        elif is_picture:
            _predict_pictures(model, palette, [path], overlays, masks)
        else:
            name = os.path.splitext(name)[0]
            _predict_video(model, palette, path, os.path.join(overlays, name + '.mp4'),
                           masks and os.path.join(masks, name))
        paths = [_put(scratch, run, os.path.join(kind, name)) for kind in ('predicted', 'masks')[:1 + save_masks]
                 for name in os.listdir(os.path.join(scratch, kind))]
    print('Overlays: {}'.format(paths[0]))
    if save_masks:
        print('Masks: {}'.format(paths[1]))
    return paths[0]


def _put(scratch, run, name):
    """Move a file or folder of this name from the scratch folder to that of the run, in the place of an older one."""
    target = os.path.join(run, name)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(target):
            os.rename(target, os.path.join(scratch, 'old ' + os.path.dirname(name)))
        os.replace(os.path.join(scratch, name), target)
    except OSError as error:
        raise safety.UserError('{}: cannot be written ({}). Remove what is in its place, or make the folder '
                               'writable'.format(target, error.strerror))
    return target


def _predict_pictures(model, palette, paths, overlays, masks):
    """Write the overlays of pictures to the folder `overlays`, and their masks to the folder `masks`, if it is one."""
    def painted():
        pictures = helper.in_order(helper.read_picture, paths)
        for path, (picture, probability) in zip(paths, _segment(model, pictures)):
            name = helper.stem(path) + '.png'
            yield os.path.join(overlays, name), palette.paint(picture, probability)
            if masks:
                yield os.path.join(masks, name), palette.mask(probability)

    helper.check_pictures(paths)
    for folder in filter(None, (overlays, masks)):
        os.makedirs(folder)
    helper.write_pictures(painted(), len(paths) * (2 if masks else 1))


def _predict_video(model, palette, path, overlay, masks):
    """Write the overlays of a video as the video `overlay`, and its frames' masks to the folder `masks`, if it is one.

    Raises safety.UserError where it cannot be read or written.
    """
    for folder in filter(None, (os.path.dirname(overlay), masks)):
        os.makedirs(folder)
    with _open_video(path) as reader:
        meta, count = reader.get_meta_data(), 0
        expected, rate = _count_frames(path, meta)
        # Colours at half the resolution, which all players know, need even numbers of pixels.
        colours = 'yuv444p' if any(side % 2 for side in meta['size']) else 'yuv420p'
        segmented = tqdm(_segment(model, _frames(reader, path)), desc='Paint', total=expected, unit='frame')
        try:
            with imageio.get_writer(overlay, format='FFMPEG', fps=rate, quality=8, pixelformat=colours,
                                    macro_block_size=1, ffmpeg_log_level='error') as writer:
                for picture, probability in segmented:
                    writer.append_data(palette.paint(picture, probability))
                    if masks:
                        helper.write_picture(os.path.join(masks, '{:06d}.png'.format(count)), palette.mask(probability))
                    count += 1
            # What ffmpeg cannot write when it closes the file, it tells nobody.
            whole = imageio_ffmpeg.count_frames_and_secs(overlay)[0] == count
        except (OSError, RuntimeError) as error:
            raise safety.UserError('{}: its overlay cannot be written ({}). Make room on the disk'.format(
                path, safety.reason(error)))
    if not whole:
        raise safety.UserError('{}: its overlay could not be written as a whole. Make room on the disk'.format(path))
    if count / rate < 0.9 * meta['duration'] or count < expected:
        print('{}: ends after {} frames, {:.1f} of {:.1f} seconds. It may be damaged'.format(
            path, count, count / rate, meta['duration']))


def _open_video(path):
    try:
        # Of a playlist, ffmpeg would fetch what it names; frames that come at uneven intervals it would repeat.
        return imageio.get_reader(path, format='FFMPEG', input_params=['-protocol_whitelist', 'file'],
                                  output_params=['-vsync', 'passthrough'])
    except (OSError, RuntimeError, IndexError) as error:
        raise _no_video(path, error)


def _count_frames(path, meta):
    """The number of a video's frames, and how many there are in a second."""
    try:
        count, seconds = imageio_ffmpeg.count_frames_and_secs(path)
    except RuntimeError as error:
        raise _no_video(path, error)
    # For frames at uneven intervals, the rate in the header can be anything.
    uneven = abs(count - seconds * meta['fps']) > 0.1 * count and seconds > 0
    return count, count / seconds if uneven else meta['fps']


def _frames(reader, path):
    try:
        for frame in reader:
            yield frame
    except (OSError, RuntimeError, IndexError) as error:
        raise _no_video(path, error)


def _no_video(path, error):
    return safety.UserError('{}: neither a PNG or JPEG picture, nor a folder of such, nor a video that imageio can '
                            'read ({}). Convert it'.format(path, (str(error).strip() or repr(error)).splitlines()[-1]))
