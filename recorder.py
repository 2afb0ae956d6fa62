"""What a run leaves behind in runs/<time>/, so that it can go on where it was stopped.

settings.json       the settings, what the run was made with, what was changed when it was resumed, and its best epoch
history.jsonl       a line for each epoch
checkpoints/        all variables, and how far the training was, twice; best.npz
events.out.*        the history for TensorBoard, with the graph and some overlays

A checkpoint is a folder, such as epoch-00003-picture-000025: after 3 epochs and 25 pictures of the next. best.npz has
the trained weights after the best epoch, which are those that a run uses in the end; best_epoch() says which that is.
"""
import contextlib
import glob
import hashlib
import json
import math
import os
import platform
import re
import shlex
import signal
import time
import zipfile
import zlib

import imageio.v2 as imageio
import numpy as np

import distributed
import metrics
import safety
from tf1 import tf

SAVE_INTERVAL = 20  # times as long as the last saving took: it takes 5 % of the time at most
SAVE_SPEED = 1e8  # bytes a second, the guess for the first saving
CHECKPOINTS_AT_ONCE = 3  # the last two, and one in the making
BEST_AT_ONCE = 2  # the best weights, and those that are about to take their place


class Progress:
    """How far a training is, of which nothing is kept.

    workers: the processes that train together, a distributed.Alone or Workers.
    history: what is known of each finished epoch, a dict each.
    pictures, loss_sum, seconds: of the epoch in progress, of all processes; loss_sum is its cross entropy summed over
    the pictures.
    cross_entropy: mean over the pictures of the epoch in progress.
    folder: of the run, None where there is none.
    stop_requested: gives the signal that asks to stop after the step, or None.

    A context in which a stop, or the end of another process, says how to go on.
    """

    def __init__(self, workers=distributed.ALONE):
        self.workers, self.history, self.folder = workers, [], None
        self.stop_requested = lambda: None
        self._start_epoch()

    def _start_epoch(self):
        self.pictures, self.loss_sum, self.seconds = 0, 0., 0.

    @property
    def cross_entropy(self):
        return self.loss_sum / self.pictures

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if not self.folder:
            return
        advice = 'to go on: ' + self._how_to_go_on()
        if isinstance(error, KeyboardInterrupt):
            done = 'after {} epochs and {} pictures; '.format(len(self.history), self.pictures)
            raise safety.Stopped(getattr(error, 'signum', signal.SIGINT),
                                 done + advice if self.history or self.pictures else advice)
        if self.workers.is_lost(error):
            raise safety.UserError('another process of the run has ended, and so does this one; ' + advice)

    def _how_to_go_on(self):
        return '{} --resume {}'.format(self.workers.command, shlex.quote(self.folder))

    def has_checkpoint(self):
        """Whether begin() will go on from one."""
        return False

    def begin(self, sess, regularisation):
        """Take over from the first process how far it is, with the values of all variables of the default graph.

        regularisation: the float32 scalar that goes into the history.

        Returns whether that is further than the beginning.
        """
        self.folder, self.history, self.pictures, self.loss_sum, self.seconds = self.workers.gather(
            (self.folder, self.history, self.pictures, self.loss_sum, self.seconds))[0]
        self.workers.broadcast_variables(sess)
        return bool(self.history or self.pictures)

    def save(self, sess):
        """Nothing is kept."""

    def epochs(self, last):
        """Yield the numbers of the epochs that are left, up to the last."""
        for epoch in range(len(self.history) + 1, last + 1):
            self._clock = time.time()
            yield epoch

    def add_step(self, sess, loss, pictures):
        """Count a training step: its mean cross entropy, over so many pictures in each process.

        Raises safety.Stopped, after saving, where that has been asked for.
        """
        now = time.time()
        self.seconds += now - self._clock
        self._clock = now
        self.pictures += pictures * self.workers.size
        self.loss_sum += float(loss) * pictures * self.workers.size
        stop = self.stop_requested()
        if stop:
            self.save(sess)
            raise safety.Stopped(stop)

    def use_best(self, sess):
        """The weights stay those of the last epoch."""

    def add_overlay(self, name, overlay):
        """Nothing is kept."""

    def add_epoch(self, sess, **more):
        """Count the epoch, which has at least one picture, as finished; returns its entry of the history.

        more: what else goes into the entry, unless it is None; `validation` is a summary of metrics' scores.
        """
        entry = dict(epoch=len(self.history) + 1, cross_entropy=self.cross_entropy, seconds=self.seconds,
                     pictures_per_second=self.pictures / max(self.seconds, 1e-9))
        entry.update((name, value) for name, value in more.items() if value is not None)
        self.history.append(entry)
        self._start_epoch()
        return entry


class Recorder(Progress):
    """The progress of a training that is kept in a folder, by the first process.

    runs_dir: where a new run gets its folder, named by the time.
    settings, made_with, about: JSON dicts for settings.json: the arguments of the run; what has to be the same when it
    is resumed; what is worth knowing besides.
    folder: of the run that is to be resumed.
    model_size: bytes that are to be written to the folder when the training has ended.
    workers: the processes that train together.

    Entering the context raises safety.UserError where that folder holds no run, one made with something else, or is in
    use.
    """

    def __init__(self, runs_dir, settings, made_with, about, folder=None, model_size=0, workers=distributed.ALONE):
        super().__init__(workers)
        self.runs_dir, self.folder, self._model_size = runs_dir, folder, model_size
        self._lock = contextlib.ExitStack()
        self._saved = None  # name of the last checkpoint
        self._best = 0  # the epoch whose weights are kept, 0 where there is none
        self._best_weights = None  # {name: array}, of this epoch
        self._best_saved = True  # whether they are in best.npz
        self._best_since = 1  # the first epoch that is compared with others: the weights of earlier ones are gone
        self._overlays = {}  # {name: uint8 [height, width, 3]}, for the next event
        self._events = None
        self._content = dict(settings=settings, made_with=made_with, about=about, changes=[])  # of settings.json

    def __enter__(self):
        if self.folder:
            self._lock_folder()
            try:
                self._compare(read_settings(self.folder))
            except safety.UserError:
                self._lock.close()
                raise
        return self

    def __exit__(self, kind, error, trace):
        self._lock.close()
        if self._events:
            with contextlib.suppress(tf.errors.OpError):  # what could not be written has been reported
                self._events.close()
        super().__exit__(kind, error, trace)

    def _compare(self, before):
        """Look whether the run can go on here, and note what is not as it was before."""
        for name, value in self._content['made_with'].items():
            if value != before['made_with'].get(name):
                raise safety.UserError(
                    '{}: the run was made with another {}: {}, and here it is {}. Go on with what it was made with, or '
                    'start a new run'.format(self.folder, name, before['made_with'].get(name), value))
        changed = {name: value for part in ('settings', 'about') for name, value in self._content[part].items()
                   if value != before[part].get(name)}
        self._content['changes'] = before['changes'] + [changed] * bool(changed)

    def _lock_folder(self):
        try:
            self._lock.enter_context(safety.locked(self.folder))
        except BlockingIOError:
            raise safety.UserError('{}: another process is at this run. Wait until it has ended'.format(self.folder))

    def begin(self, sess, regularisation):
        """Make ready to train with all variables of the default graph, and restore them where there is a checkpoint.

        regularisation: the float32 scalar that goes into the history.

        Returns whether the variables, which have values before, have been restored; otherwise they are as they were.

        Raises safety.UserError where there is no place to write to, or no checkpoint is whole.
        """
        variables = tf.global_variables()
        self._saver = tf.train.Saver(variables, max_to_keep=None)
        self._trained = {variable.op.name: variable for variable in tf.trainable_variables()}
        self._regularisation = regularisation
        size, trained_size = (
            sum(variable.dtype.base_dtype.size * (variable.shape.num_elements() or 0) for variable in some)
            for some in (variables, self._trained.values()))
        self._next_save = time.time() + SAVE_INTERVAL * size / SAVE_SPEED
        paths = self._checkpoints() if self.folder else []
        best = bool(self.folder) and os.path.exists(self._best_path())
        safety.check_space(self.folder or self.runs_dir, self._model_size + size * (CHECKPOINTS_AT_ONCE - len(paths)) +
                           trained_size * (BEST_AT_ONCE - best), 'checkpoints and model need')
        if not self.folder:
            self._make_folder()
        try:
            os.makedirs(os.path.join(self.folder, 'checkpoints'), exist_ok=True)
        except OSError as error:
            raise safety.UserError('{}: cannot be written to ({})'.format(self.folder, error.strerror))
        self._restore(sess, paths)
        self._write_settings()
        self._write_history()
        self._begin_events(sess.graph)
        print('Settings, history and checkpoints: {}'.format(self.folder))
        return super().begin(sess, regularisation)

    def _make_folder(self):
        while not self.folder:
            folder = os.path.join(self.runs_dir, str(time.time()))
            try:
                os.mkdir(folder)
            except FileExistsError:  # of a run that started in the same moment
                continue
            self.folder = folder
        self._lock_folder()
        latest, link = os.path.join(self.runs_dir, 'latest'), os.path.join(self.folder, 'latest')
        try:
            os.symlink(os.path.basename(self.folder), link)
            os.replace(link, latest)
        except OSError as error:  # a file system without links, or a folder of this name
            print('{}: does not point at this run ({})'.format(latest, error.strerror))
            with contextlib.suppress(OSError):
                os.remove(link)

    def has_checkpoint(self):
        """Whether begin() will go on from one."""
        return bool(self.folder and self._checkpoints())

    def _checkpoints(self):
        """The paths of the checkpoints, the oldest first."""
        found = {}
        for path in glob.glob(os.path.join(glob.escape(self.folder), 'checkpoints', '*')):
            numbers = re.match(r'epoch-(\d+)-picture-(\d+)$', os.path.basename(path))
            if numbers:
                found[path] = tuple(map(int, numbers.groups()))
        return sorted(found, key=found.get)

    def _restore(self, sess, paths):
        """Restore the variables and the progress from the last of the checkpoints that is whole."""
        damaged = []
        for path in reversed(paths):
            try:
                state = _read_state(path)
                self._saver.restore(sess, os.path.join(path, 'weights'))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, tf.errors.DataLossError,
                    tf.errors.OutOfRangeError) as error:
                print('{}: damaged ({}), trying the one before'.format(path, safety.reason(error)))
                damaged.append(path)
                continue
            except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
                raise safety.UserError('{}: of another network ({}). Go on with the code that made it, or start a new '
                                       'run'.format(path, safety.reason(error)))
            self._remove(damaged)
            self.history, self.pictures = state['history'], state['pictures']
            self.loss_sum, self.seconds = state['loss_sum'], state['seconds']
            self._saved = os.path.basename(path)
            self._restore_best()
            print('Going on after {} epochs and {} pictures'.format(len(self.history), self.pictures))
            return
        if paths:
            raise safety.UserError('{}: no checkpoint is whole. Start a new run'.format(
                os.path.join(self.folder, 'checkpoints')))

    def add_step(self, sess, loss, pictures):
        """Count a training step, and save when it is time."""
        super().add_step(sess, loss, pictures)
        if time.time() > self._next_save:
            self.save(sess)

    def add_overlay(self, name, overlay):
        """Show an overlay, uint8 [height, width, 3], with the epoch that is about to be counted."""
        self._overlays[name] = overlay

    def add_epoch(self, sess, **more):
        """Count the epoch as finished, and write it to the history and the events; keep the weights if it is the best.

        Raises safety.UserError where the regularisation is not finite.
        """
        regularisation = float(sess.run(self._regularisation))
        if not math.isfinite(regularisation):
            raise safety.UserError('the regularisation became {} in epoch {}: try a lower --learning-rate, or a lower '
                                   '--l2'.format(regularisation, len(self.history) + 1))
        entry = super().add_epoch(sess, regularisation=regularisation, **more)
        entry['best'] = best_epoch(self.history[self._best_since - 1:]) is entry
        self._write_history()
        self._write_events(entry)
        if entry['best']:
            self._best, self._best_weights, self._best_saved = entry['epoch'], sess.run(self._trained), False
        return entry

    def use_best(self, sess):
        """Give the trained variables the values they had after the best epoch, and say which that is.

        Where the weights of all epochs but the last are lost, they stay as they are.
        """
        if self._best_weights is not None:
            for name, variable in self._trained.items():
                variable.load(self._best_weights[name], sess)
        best = self.history[(self._best or len(self.history)) - 1]
        self._content['best'] = {name: best[name] for name in ('epoch', 'cross_entropy', 'validation') if name in best}
        self._write_settings()
        print(self._tell_best())

    def _tell_best(self):
        """Which epoch's weights are used, in a sentence."""
        best = self._content['best']
        scores = ['cross entropy {:.4f}'.format(best['cross_entropy'])]
        if 'validation' in best:
            scores.append('validation ' + metrics.format_headline(best['validation']))
        return '{} epoch {} of {}: {}'.format(
            'The weights in use are those after the best epoch,' if self._best else
            'The weights of the best epoch are lost. In use are those after the last,',
            best['epoch'], len(self.history), ', '.join(scores))

    def write_page(self, gallery, scores):
        """Write index.html: gallery, a page.Page, with the settings, the history and tables of scores."""
        path = os.path.join(self.folder, 'index.html')
        made_with = self._content['made_with']
        summary = '{}. Made with TensorFlow {} in {}.'.format(
            self._tell_best(), made_with['TensorFlow'], made_with['precision'])
        gallery.write(path, 'Road segmentation, run {}'.format(os.path.basename(self.folder)), summary,
                      dict(self._content['settings'], **self._content['about']), self.history, scores)
        print('Page: {}'.format(path))

    def _begin_events(self, graph):
        # Not tf.summary.FileWriter, whose thread swallows the error of a full disk, or raises it anywhere.
        name = 'events.out.tfevents.{:.6f}.{}'.format(time.time(), platform.node())
        self._events = tf.io.TFRecordWriter(os.path.join(self.folder, name))
        self._write_event(file_version='brain.Event:2')
        self._write_event(graph_def=graph.as_graph_def().SerializeToString())
        # Where the checkpoint is older than earlier events, TensorBoard drops what is about to come again.
        self._write_event(step=len(self.history) + 1, session_log=tf.SessionLog(status=tf.SessionLog.START))

    def _write_event(self, **content):
        try:
            self._events.write(tf.Event(wall_time=time.time(), **content).SerializeToString())
            self._events.flush()
        except tf.errors.OpError as error:
            raise safety.UserError("{}: TensorBoard's events cannot be written ({}). Make room there; "
                                   '{} goes on from the last checkpoint'.format(
                                       self.folder, safety.reason(error), self._how_to_go_on()))

    def _write_events(self, entry):
        scores = dict(entry, **{'validation/' + name: value for name, value in entry.get('validation', {}).items()})
        values = [tf.Summary.Value(tag=name, simple_value=value) for name, value in sorted(scores.items())
                  if isinstance(value, float)]
        for name, overlay in sorted(self._overlays.items()):
            values.append(tf.Summary.Value(tag='validation/' + name, image=tf.Summary.Image(
                height=overlay.shape[0], width=overlay.shape[1], colorspace=3,
                encoded_image_string=imageio.imwrite('<bytes>', overlay, format='jpg'))))
        self._overlays = {}
        self._write_event(step=entry['epoch'], summary=tf.Summary(value=values))

    def save(self, sess):
        """Write a checkpoint, unless nothing has happened since the last, and remove those that are not needed.

        Raises safety.UserError where it cannot be written; then those before are as they were.
        """
        name = 'epoch-{:05d}-picture-{:06d}'.format(len(self.history), self.pictures)
        if name == self._saved:
            return
        start = time.time()
        folder = os.path.join(self.folder, 'checkpoints')
        path = os.path.join(folder, name)
        try:
            self._save_best()
            with safety.scratch_folder(folder) as scratch:
                part = os.path.join(scratch, name)
                os.mkdir(part)
                self._saver.save(sess, os.path.join(part, 'weights'), write_meta_graph=False, write_state=False)
                _write_state(part, dict(history=self.history, pictures=self.pictures, loss_sum=self.loss_sum,
                                        seconds=self.seconds))
                for file in [os.path.join(part, file) for file in os.listdir(part)] + [part]:
                    _sync(file)
                os.rename(part, path)
            _sync(folder)
            self._remove_old()
        except (OSError, tf.errors.OpError) as error:
            raise safety.UserError(
                '{}: the checkpoint cannot be written ({}). Make room there; {} goes on from the one before'.format(
                    path, safety.reason(error), self._how_to_go_on()))
        self._saved = name
        self._clock = time.time()
        self._next_save = self._clock + SAVE_INTERVAL * (self._clock - start)

    def _best_path(self):
        return os.path.join(self.folder, 'checkpoints', 'best.npz')

    def _save_best(self):
        """Write the best weights, unless they are there: before the checkpoint, which counts on them."""
        if self._best_saved:
            return
        with safety.scratch_folder(os.path.dirname(self._best_path())) as scratch:
            part = os.path.join(scratch, 'best.npz')
            np.savez(part, epoch=self._best, **self._best_weights)
            _sync(part)
            os.replace(part, self._best_path())
        self._best_saved = True

    def _restore_best(self):
        """Read the best weights; where they are damaged, the best of the epochs to come takes their place.

        They may be of an epoch after the checkpoint, which the run will reach again.
        """
        if not self.history:
            return
        path = self._best_path()
        try:
            if not zipfile.is_zipfile(path):  # numpy complains of it a second time, on its own
                raise ValueError('missing or cut off')
            with open(path, 'rb') as file, np.load(file) as arrays:
                epoch, weights = int(arrays['epoch']), {name: arrays[name] for name in self._trained}
            for name, array in weights.items():
                if array.dtype != np.float32 or not self._trained[name].shape.is_compatible_with(array.shape):
                    raise ValueError('{} does not fit'.format(name))
            if epoch < 1:
                raise ValueError('of epoch {}'.format(epoch))
        except (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile,
                zlib.error) as error:
            print('{}: damaged ({}): the best weights so far are lost, and those of the best epoch from here on '
                  'are used'.format(path, safety.reason(error)))
            self._best_since = len(self.history) + 1
        else:
            self._best, self._best_weights = epoch, weights
            self._best_since = epoch if epoch <= len(self.history) else 1

    def _remove_old(self):
        """Keep the last two."""
        self._remove(self._checkpoints()[:-2])

    def _remove(self, paths):
        # Moved away first: a kill in the middle must not leave half a checkpoint under its name.
        with safety.scratch_folder(os.path.join(self.folder, 'checkpoints')) as scratch:
            for path in paths:
                os.rename(path, os.path.join(scratch, os.path.basename(path)))

    def _write_settings(self):
        self._write('settings.json', json.dumps(self._content, indent=2))

    def _write_history(self):
        self._write('history.jsonl', ''.join(json.dumps(entry) + '\n' for entry in self.history))

    def _write(self, name, text):
        with safety.written_whole(os.path.join(self.folder, name)) as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


def best_epoch(history):
    """The entry of the epoch with the highest road or mean IoU in validation, or without any the lowest cross entropy.

    history: of a Progress, at least one entry.
    """
    scored = [entry for entry in history if 'validation' in entry]
    if scored:
        return max(scored, key=lambda entry: metrics.decisive(entry['validation']) or 0)
    return min(history, key=lambda entry: entry['cross_entropy'])


def _write_state(folder, state):
    with open(os.path.join(folder, 'state.json'), 'w') as file:
        json.dump(dict(state=state, digest=_digest(folder, state)), file)


def _read_state(folder):
    """What _write_state wrote; raises OSError or ValueError where it, or the index of the weights, is damaged."""
    content = _read_json(os.path.join(folder, 'state.json'))
    state = content.get('state')
    if content.get('digest') != _digest(folder, state):
        raise ValueError('the digest is wrong')
    if not _is_state(state):
        raise ValueError('not the state of a training')
    os.stat(os.path.join(folder, 'weights.data-00000-of-00001'))
    return state


def _is_state(state):
    try:
        epochs = [entry['epoch'] for entry in state['history']]
        numbers = [entry['cross_entropy'] for entry in state['history']] + [state['loss_sum'], state['seconds']]
        if epochs:
            best_epoch(state['history'])
        return (epochs == list(range(1, len(epochs) + 1)) and all(map(math.isfinite, numbers)) and
                isinstance(state['pictures'], int) and state['pictures'] >= 0)
    except (LookupError, TypeError):
        return False


def _digest(folder, state):
    # The index has checksums of the weights, which TensorFlow compares, but none that it would compare of itself.
    with open(os.path.join(folder, 'weights.index'), 'rb') as file:
        return fingerprint(json.dumps(state, sort_keys=True).encode(), file.read())


def fingerprint(*parts):
    """A short digest of some bytes."""
    return hashlib.blake2b(b'\0'.join(parts), digest_size=16).hexdigest()


def read_settings(folder):
    """The content of settings.json of a run: the dicts `settings`, `made_with` and `about`, and the list `changes`.

    Raises safety.UserError where the folder holds no run.
    """
    path = os.path.join(folder, 'settings.json')
    try:
        content = _read_json(path)
    except FileNotFoundError:
        raise safety.UserError('{}: no run: it holds no settings.json'.format(folder))
    except (OSError, ValueError) as error:
        raise safety.UserError('{}: cannot be read ({})'.format(path, error))
    for name, kind in (('settings', dict), ('made_with', dict), ('about', dict), ('changes', list)):
        if not isinstance(content.get(name), kind):
            raise safety.UserError('{}: not the settings of a run: "{}" is missing'.format(path, name))
    return content


def _read_json(path):
    """The JSON object in a file; raises OSError or ValueError."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except RecursionError as error:
        raise ValueError(error)
    if not isinstance(content, dict):
        raise ValueError('no JSON object')
    return content


def _sync(path):
    """Have the system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
