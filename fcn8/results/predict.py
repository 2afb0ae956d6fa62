"""Overlays and masks of pictures and videos, with a trained model: `python main.py --predict PATH --model RUN`."""
import contextlib
import logging
import os
import re

import imageio.v2 as imageio
import imageio_ffmpeg

from fcn8 import progress
from fcn8.data import images, kitti
from fcn8.errors import UserError, cannot_write, reason
from fcn8.files import check_writable, scratch_folder, stem
from fcn8.results import pages, saved_model

# It warns of videos that were filmed upright, which it turns.
logging.getLogger('imageio_ffmpeg').setLevel(logging.ERROR)


def predict(path, run, save_masks=False):
    """Paint the road, or other classes, on a picture, the pictures of a folder, or a video, in their own size.

    path: a PNG or JPEG picture, a folder of such, or a video.
    run: the folder of the run that trained the model; the overlays go to its folder `predicted`.
    save_masks: also write the road, white on black, or the classes in their colours, as PNGs to the run's folder
    `masks`.

    Returns the path of the overlay, or of the folder of the overlays, which has a page of them, index.html. They appear
    when all are there, and replace what was there before.

    Raises UserError.
    """
    is_folder, is_picture = os.path.isdir(path), re.search(r'\.(png|jpe?g)$', path, re.IGNORECASE)
    if not (is_folder or os.path.isfile(path)):
        raise UserError(f'{path}: no such picture, folder or video')
    images.refuse_other_formats([path])
    if os.path.isdir(run):  # otherwise saved_model.load() says so
        check_writable(run)
    name = os.path.basename(os.path.abspath(path))
    with saved_model.load(run) as model, scratch_folder(run) as scratch:
        overlays, masks = os.path.join(scratch, 'predicted'), os.path.join(scratch, 'masks') if save_masks else None
        if is_folder:
            gallery = _predict_pictures(model, images.list_pictures(path), os.path.join(overlays, name),
                                        masks and os.path.join(masks, name))
            pages.write(os.path.join(overlays, name, 'index.html'), 'predicted.html', galleries=[gallery],
                        title=f'{name}, predicted by run {os.path.basename(run)}')
        elif is_picture:
            _predict_pictures(model, [path], overlays, masks)
        else:
            name = os.path.splitext(name)[0]
            _predict_video(model, path, os.path.join(overlays, name + '.mp4'),
                           masks and os.path.join(masks, name))
        paths = [_put(scratch, run, os.path.join(kind, name)) for kind in ('predicted', 'masks')[:1 + save_masks]
                 for name in os.listdir(os.path.join(scratch, kind))]
    print(f'Overlays: {paths[0]}')
    if save_masks:
        print(f'Masks: {paths[1]}')
    if is_folder:
        print('Page: ' + os.path.join(paths[0], 'index.html'))
    return paths[0]


def _put(scratch, run, name):
    """Move a file or folder of this name from the scratch folder to that of the run, replacing an older one."""
    target = os.path.join(run, name)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(target):
            os.rename(target, os.path.join(scratch, 'old ' + os.path.dirname(name)))
        os.replace(os.path.join(scratch, name), target)
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def _predict_pictures(model, paths, overlays, masks):
    """Write the overlays of pictures to the folder `overlays`, and their masks to the folder `masks`, if it is one.

    Returns a pages.Gallery of them.
    """
    def write(path_and_segmented):
        path, (picture, prediction) = path_and_segmented
        name, overlay = stem(path) + '.png', model.classes.paint(picture, prediction)
        images.write_picture(os.path.join(overlays, name), overlay)
        if masks:
            images.write_picture(os.path.join(masks, name), model.classes.mask(prediction))
        return pages.encode(os.path.basename(path), kitti.category(path), dict(
            Overlay=overlay, Picture=picture, Prediction=model.classes.draw(prediction)))

    images.check_pictures(paths)
    for folder in filter(None, (overlays, masks)):
        os.makedirs(folder)
    segmented, gallery = model.segment(paths, images.read_picture), pages.Gallery()
    for picture in progress.bar(images.in_order(write, zip(paths, segmented)), desc='Paint', total=len(paths),
                                unit='picture'):
        gallery.add(picture)
    return gallery


def _predict_video(model, path, overlay, masks):
    """Write the overlays of a video as the video `overlay`, and its frames' masks to the folder `masks`, if it is one.

    Raises UserError if it cannot be read or written.
    """
    for folder in filter(None, (os.path.dirname(overlay), masks)):
        os.makedirs(folder)
    with _reading(path):
        # With its folder: ffmpeg takes what is before a colon for a protocol. Of a playlist it would fetch what that
        # names; frames that come at uneven intervals it would repeat.
        reader = imageio.get_reader(
            os.path.abspath(path), format='FFMPEG', input_params=['-protocol_whitelist', 'file'],
            output_params=['-vsync', 'passthrough'])
    with reader:
        meta, count = reader.get_meta_data(), 0

        def paint(segmented_frame):
            number, (picture, prediction) = segmented_frame
            if masks:
                images.write_picture(os.path.join(masks, f'{number:06d}.png'), model.classes.mask(prediction))
            return model.classes.paint(picture, prediction)

        expected, rate = _count_frames(path, meta)
        # Colours at half the resolution, which all players know, need even numbers of pixels.
        colours = 'yuv444p' if any(side % 2 for side in meta['size']) else 'yuv420p'
        segmented = progress.bar(model.segment(_frames(reader, path)), desc='Paint', total=expected, unit='frame')
        try:
            with imageio.get_writer(overlay, format='FFMPEG', fps=rate, quality=8, pixelformat=colours,
                                    macro_block_size=1, ffmpeg_log_level='error') as writer:
                for frame in images.in_order(paint, enumerate(segmented)):
                    writer.append_data(frame)
                    count += 1
            # ffmpeg does not report what it cannot write when it closes the file.
            whole = imageio_ffmpeg.count_frames_and_secs(overlay)[0] == count
        except (OSError, RuntimeError) as error:
            raise UserError(f'{path}: its overlay cannot be written ({reason(error)}). Free some disk space') from error
    if not whole:
        raise UserError(f'{path}: its overlay is incomplete. Free some disk space')
    if count / rate < 0.9 * meta['duration'] or count < expected:
        print('{}: ends after {} frames, {:.1f} of {:.1f} seconds. It may be damaged'.format(
            path, count, count / rate, meta['duration']))


def _count_frames(path, meta):
    """The number of a video's frames, and how many there are in a second."""
    with _reading(path):
        count, seconds = imageio_ffmpeg.count_frames_and_secs(os.path.abspath(path))
    # For frames at uneven intervals, the rate in the header can be anything.
    uneven = abs(count - seconds * meta['fps']) > 0.1 * count and seconds > 0
    return count, count / seconds if uneven else meta['fps']


def _frames(reader, path):
    with _reading(path):
        yield from reader


@contextlib.contextmanager
def _reading(path):
    """Raise UserError instead of what a file that is not a video makes imageio raise."""
    try:
        yield
    except (OSError, RuntimeError, IndexError) as error:
        last_line = (str(error).strip() or repr(error)).splitlines()[-1]
        raise UserError(f'{path}: neither a PNG or JPEG picture, nor a folder of such, nor a video that imageio can '
                        f'read ({last_line}). Convert it') from error
