"""The folder of a run, runs/<time>/: all that a training leaves behind, so that it can be resumed.

settings.json       settings, provenance, what was changed when the run was resumed, and its best epoch
history.jsonl       a line for each epoch
checkpoints/        see checkpoints.py
events.out.*        the history for TensorBoard
*.png, index.html   the painted test pictures, and the page of the run
scores.json         what the list of all runs, ../index.html, and later runs show of it
model/              the trained network
"""
import contextlib
import functools
import json
import os
import platform
import signal
import time

import numpy as np
import PIL

from fcn8 import distributed
from fcn8.data import images, kitti, labels
from fcn8.device import gpu_advice, gpu_name, uses_tf32
from fcn8.errors import Stopped, UserError, is_out_of_memory
from fcn8.files import check_space, check_writable, digest, digest_of_files, locked, written_whole
from fcn8.results import run_list, saved_model
from fcn8.results.report import Report
from fcn8.settings import PUBLISHED, option_name, read_saved
from fcn8.tf1 import tf
from fcn8.training.callback import Callback, RecordingCallback
from fcn8.training.checkpoints import Checkpoints, list_checkpoints, space_needed
from fcn8.training.events import Events


class RunFolder:
    """The folder of a run, new or resumed, in which the chief alone writes.

    settings: settings.Settings.
    batches: data.kitti.Batches to train on.
    precision: device.choose_precision().

    path: of the folder, None until the training of a new run begins.
    callback: the training.callback.Callback of this process.
    report: results.report.Report, once the training has begun.
    gpu: the name of the GPU, None without one.

    As a context it holds the lock of the folder. Entering it raises UserError if something is missing for the end of
    the run, and if a run cannot be resumed: none there, in use, made with something else. A stop inside the context
    ends with the advice how to resume, and so does a lack of memory after the last epoch.
    """

    def __init__(self, settings, batches, precision):
        self.settings, self.batches, self.gpu = settings, batches, gpu_name()
        self.path = settings.resume and os.path.normpath(settings.resume)  # its parent is that of runs/1/, too
        self.report = None
        self.callback = (RecordingCallback(settings, batches, self) if distributed.is_chief() else
                         Callback(settings, batches))
        self._lock = contextlib.ExitStack()
        self._provenance = provenance(settings, batches, precision)
        about = dict(python=platform.python_version(), numpy=np.__version__, Pillow=PIL.__version__,
                     device=self.gpu or 'CPU', tf32=uses_tf32(self.gpu), processes=distributed.size())
        self._content = dict(settings=settings.saved(), made_with=self._provenance, about=about, changes=[])

    def __enter__(self):
        print('TensorFlow {} {} in {}'.format(
            tf.__version__, f'trains on {self.gpu}' if self.gpu else 'found no GPU and trains on the CPU',
            self._provenance['precision']))
        if gpu_advice(self.gpu):
            print(gpu_advice(self.gpu))
        if self._provenance['precision'] == 'float16' and not (
                self.path or self.settings.decoder_first or self.settings.freeze_encoder):
            print('float16 loses the gradients of conv5, fc6 and fc7 unless the decoder is trained first: add '
                  '--decoder-first 30, or leave out --amp')
        test_pairs = self._check_end() if distributed.is_chief() else []
        distributed.compare(dict(
            {option_name(name): value for name, value in self._content['settings'].items()
             if name not in ('data_dir', 'classes')}, device='GPU' if self.gpu else 'CPU', **self._provenance))
        if distributed.is_chief():
            self._label_of = dict(self.batches.pairs + test_pairs)
            self._check_space()
            if self.path:
                self._lock_folder()
                try:
                    self._compare_with(read_saved(self.path))
                except UserError:
                    self._lock.close()
                    raise
        return self

    def __exit__(self, kind, error, trace):
        self._lock.close()
        callback = self.callback
        if not callback.folder:
            return
        command = distributed.resume_command(callback.folder)
        if isinstance(error, KeyboardInterrupt):
            place = callback.describe_progress() if callback.history or callback.pictures else 'while preparing'
            raise Stopped(getattr(error, 'signum', signal.SIGINT), f'{place}; to go on: {command}')
        if is_out_of_memory(error) and callback.next_epoch > self.settings.epochs:  # a smaller batch would not help
            raise UserError(f'out of memory {callback.describe_progress()}; the last checkpoint is kept. Free some '
                            f'memory, then run {command}') from error

    def _check_end(self):
        """Check now what the end of the run needs, rather than after hours of training.

        Returns the (picture, label) paths of the test pictures, none if they have no labels.
        """
        testing, folder = self.settings.testing_folder, self.path or self.settings.runs_dir
        pairs = []
        images.check_pictures(kitti.list_pictures(testing))
        if os.path.isdir(os.path.join(testing, 'gt_image_2')):
            pairs = kitti.pair_with_labels(testing)
            images.run_all(functools.partial(labels.read_label, classes=self.batches.classes),
                           [pairs[index][1] for index in images.sample(len(pairs))], 'Check labels')
        check_writable(folder)
        return pairs

    def _check_space(self):
        weights = os.path.getsize(os.path.join(self.settings.vgg_path, 'variables', 'variables.data-00000-of-00001'))
        trained = 0 if self.settings.freeze_encoder else weights  # the decoder is small
        checkpoints = os.path.join(self.path or self.settings.runs_dir, 'checkpoints')  # not there in a new run
        check_space(os.path.dirname(checkpoints), weights + space_needed(checkpoints, trained),
                    'checkpoints and model need')

    def _compare_with(self, before):
        """Raise UserError if the run was made with something else, and note what else has changed."""
        for name, value in self._provenance.items():
            if before['made_with'].get(name, value) != value:
                raise UserError(f'{self.path}: {name} differs: {before["made_with"][name]} when the run was made, '
                                f'{value} now. Resume it with the same, or start a new run')
        changed = {name: value for part in ('settings', 'about') for name, value in self._content[part].items()
                   # An older version lacks some.
                   if value != before[part].get(name, PUBLISHED.saved().get(name, value))}
        self._content['changes'] = before['changes'] + [changed] * bool(changed)

    def _lock_folder(self):
        try:
            certain = self._lock.enter_context(locked(self.path))
        except BlockingIOError:
            raise UserError(f'{self.path}: another process is using this run. Wait until it has ended') from None
        if not certain:
            print(f'{self.path}: the file system has no locks. Do not resume this run twice at the same time')

    def is_resumed(self):
        """Whether there is a checkpoint to resume from; the same in all processes."""
        return distributed.gather(bool(self.path and list_checkpoints(os.path.join(self.path, 'checkpoints'))))[0]

    def open_checkpoints(self):
        """The Checkpoints of the default graph; the folder is made for a new run."""
        if not self.path:
            self._check_space()  # again: there may be features now
            self._make()
        checkpoints = os.path.join(self.path, 'checkpoints')
        os.makedirs(checkpoints, exist_ok=True)
        return Checkpoints(checkpoints)

    def _make(self):
        runs_dir = self.settings.runs_dir
        self.path = os.path.join(runs_dir, str(time.time()))
        os.mkdir(self.path)
        self._lock_folder()
        self._write_settings()  # so it can be resumed from now on
        latest, link = os.path.join(runs_dir, 'latest'), os.path.join(self.path, 'latest')
        try:
            os.symlink(os.path.basename(self.path), link)
            os.replace(link, latest)
        except OSError as error:  # a file system without links, or a folder with this name
            print(f'{latest}: cannot be made a link to this run ({error.strerror})')
            with contextlib.suppress(OSError):
                os.remove(link)

    def begin(self, graph, history):
        """Write what is known before the first step; returns the Events of this start."""
        if self.settings.resume:  # a new run has them already
            self._write_settings()
        self.write_history(history)
        self.report = Report(self.path, self.batches.classes, self._label_of)
        print(f'Settings, history and checkpoints: {self.path}')
        return Events(self.path, graph, len(history) + 1)

    def write_history(self, history):
        """Write the history of a Callback to history.jsonl."""
        self._write('history.jsonl', ''.join(json.dumps(entry) + '\n' for entry in history))

    def write_best(self, entry):
        """Write to settings.json which epoch's weights are in use."""
        names = ('epoch', 'cross_entropy', 'validation')
        self._content['best'] = {name: entry[name] for name in names if name in entry}
        self._write_settings()

    def _write_settings(self):
        self._write('settings.json', json.dumps(self._content, indent=2))

    def _write(self, name, text):
        with written_whole(os.path.join(self.path, name)) as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def save_results(self, segmenter):
        """Write model, page, with the validation pictures, and list of runs, and print the scores.

        segmenter: results.segmenter.Segmenter of the trained network.
        """
        saved_model.export(segmenter, os.path.join(self.path, 'model'))
        for sample in segmenter.segment(self.batches.validation_pictures):
            self.report.add(*sample, part='validation')
        if self.report.format_scores():
            print(self.report.format_scores())
        summary = '{}. Made with TensorFlow {} in {}.'.format(
            self.callback.describe_best(), self._provenance['TensorFlow'], self._provenance['precision'])
        kept_out = set(self.batches.validation_pictures)
        trained = [path for pair in self.batches.pairs if pair[0] not in kept_out for path in pair]
        print('Page: ' + self.report.write(
            f'Road segmentation, run {os.path.basename(self.path)}', summary,
            dict(self._content['settings'], **self._content['about']), self.callback.history,
            self.callback.best['cross_entropy'], trained))
        run_list.write(os.path.dirname(self.path))


def provenance(settings, batches, precision):
    """What has to be the same for a run to be resumed, and in all its processes: {name: value}."""
    with open(os.path.join(settings.vgg_path, 'variables', 'variables.index'), 'rb') as file:
        weights = file.read()  # their names, shapes and checksums
    files = [path for pair in batches.pairs for path in pair]
    return {'TensorFlow': tf.__version__, 'precision': precision, 'classes': batches.classes.description,
            'VGG-16': digest(weights),
            'set of training pictures (by names and bytes)': digest_of_files(files)}
