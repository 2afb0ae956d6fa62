"""The checkpoints of a run: all its variables and how far it is, twice, and the best weights.

A checkpoint is a folder, such as epoch-00003-picture-000025: after 3 epochs and 25 pictures of the next. best.npz holds
the trained weights after the best epoch.
"""
import glob
import json
import os
import re
import time
import zipfile
import zlib

import numpy as np

from fcn8 import distributed
from fcn8.errors import UserError, cannot_write, reason
from fcn8.files import digest, read_json, scratch_folder, sync
from fcn8.tf1 import tf

SAVE_INTERVAL = 20  # times as long as the last saving took: so it takes 5 % of the time at most
SAVE_SPEED = 1e8  # bytes a second, the guess for the first saving
CHECKPOINTS_AT_ONCE = 3  # the last two, and the next one while it is written
BEST = 'best.npz'
BEST_AT_ONCE = 2  # the best weights, and the next ones while they are written
DAMAGED = (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, tf.errors.DataLossError,
           tf.errors.OutOfRangeError)


class Checkpoints:
    """Saves the variables of the default graph to an existing folder, and restores them.

    folder: runs/<time>/checkpoints.

    best_epoch: the one whose weights are kept, 0 without any.
    """

    def __init__(self, folder):
        self.folder, self.best_epoch = folder, 0
        self._best_weights, self._best_is_saved = None, True  # {name: array}
        self._last = None  # name of the last checkpoint
        self._variables = tf.global_variables()
        self._trained = {variable.op.name: variable for variable in tf.trainable_variables()}
        with tf.name_scope('best_weights'):
            self._given = {name: tf.placeholder(variable.dtype.base_dtype, variable.shape)
                           for name, variable in self._trained.items()}
            self._assign = tf.group(*(tf.assign(variable, self._given[name])
                                      for name, variable in self._trained.items()))
        self._saver = tf.train.Saver(self._variables, max_to_keep=None)
        size = sum(variable.dtype.base_dtype.size * (variable.shape.num_elements() or 0)
                   for variable in self._variables)
        self._next_save = time.time() + SAVE_INTERVAL * size / SAVE_SPEED

    def restore(self, sess):
        """Restore the variables from the last checkpoint that is not damaged, with the best weights.

        Returns its state, as given to save(); None if there are no checkpoints.

        Raises UserError if all are damaged, or of another network.
        """
        paths, damaged = list_checkpoints(self.folder), []
        for path in reversed(paths):
            try:
                state = _read_state(path)
                self._saver.restore(sess, os.path.join(path, 'weights'))
            except DAMAGED as error:
                print(f'{path}: damaged ({reason(error)}), trying the one before')
                damaged.append(path)
                continue
            except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
                raise UserError(f'{path}: belongs to another network ({reason(error)}). Go on with the code that made '
                                'it, or start a new run') from error
            self._remove(damaged)
            self._last = os.path.basename(path)
            if state['history']:
                self._read_best()
            return state
        if paths:
            raise UserError(f'{self.folder}: all checkpoints are damaged. Start a new run')
        return None

    def save(self, sess, state):
        """Write a checkpoint, unless the last one has this state; the last two are kept.

        state: a dict for JSON; its `history` and `pictures` name the checkpoint.

        Raises UserError if it cannot be written; then those before are as they were.
        """
        name = 'epoch-{:05d}-picture-{:06d}'.format(len(state['history']), state['pictures'])
        if name == self._last:
            return
        start = time.time()
        path = os.path.join(self.folder, name)
        try:
            self._save_best()  # before the checkpoint, which counts on it
            with scratch_folder(self.folder) as scratch:
                part = os.path.join(scratch, name)
                os.mkdir(part)
                self._saver.save(sess, os.path.join(part, 'weights'), write_meta_graph=False, write_state=False)
                _write_state(part, state)
                for file in [os.path.join(part, file) for file in os.listdir(part)] + [part]:
                    sync(file)
                os.rename(part, path)
            sync(self.folder)
            self._remove(list_checkpoints(self.folder)[:-2])
        except (OSError, tf.errors.OpError) as error:
            command = distributed.resume_command(os.path.dirname(self.folder))
            raise UserError(f'{cannot_write(path, error)}, then resume with `{command}`') from error
        self._last = name
        self._next_save = time.time() + SAVE_INTERVAL * (time.time() - start)

    def is_due(self):
        """Whether it is time for another checkpoint."""
        return time.time() > self._next_save

    def keep_best(self, sess, epoch):
        """Keep the trained weights as those of the best epoch; raises UserError if they are not finite."""
        weights = sess.run(self._trained)
        for name, array in weights.items():
            if not np.isfinite(array).all():
                raise UserError(f'the weights {name} are no longer finite in epoch {epoch}: try a lower '
                                '--learning-rate')
        self.best_epoch, self._best_weights, self._best_is_saved = epoch, weights, False

    def use_best(self, sess):
        """Give the trained variables the best weights, if there are any."""
        if self._best_weights:
            # All at once: TensorFlow prepares the graph again for each new op that a session runs.
            sess.run(self._assign, {self._given[name]: array for name, array in self._best_weights.items()})

    def _save_best(self):
        if self._best_is_saved:
            return
        with scratch_folder(self.folder) as scratch:
            part = os.path.join(scratch, BEST)
            np.savez(part, epoch=self.best_epoch, **self._best_weights)
            sync(part)
            os.replace(part, os.path.join(self.folder, BEST))
        self._best_is_saved = True

    def _read_best(self):
        """Read the best weights; they may be of an epoch after the checkpoint, which the run will reach again."""
        path = os.path.join(self.folder, BEST)
        try:
            if not zipfile.is_zipfile(path):  # otherwise numpy complains in many lines
                raise ValueError('missing or cut off')
            with open(path, 'rb') as file, np.load(file) as arrays:
                epoch, weights = int(arrays['epoch']), {name: arrays[name] for name in self._trained}
            for name, array in weights.items():
                if array.dtype != np.float32 or not self._trained[name].shape.is_compatible_with(array.shape):
                    raise ValueError(f'{name} does not fit')
            if epoch < 1:
                raise ValueError(f'of epoch {epoch}')
        except (OSError, EOFError, LookupError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile,
                zlib.error) as error:
            print(f'{path}: damaged ({reason(error)}): the best weights so far are lost, and those of the best epoch '
                  'from here on are used')
        else:
            self.best_epoch, self._best_weights = epoch, weights

    def _remove(self, paths):
        # Moved away first: a kill in the middle must not leave half a checkpoint under its name.
        with scratch_folder(self.folder) as scratch:
            for path in paths:
                os.rename(path, os.path.join(scratch, os.path.basename(path)))


def space_needed(folder, weights):
    """The bytes that checkpoints will take, beside those that are in the folder already.

    weights: bytes of the trained weights; a checkpoint also has Adam's two moments of them.
    """
    return weights * (3 * (CHECKPOINTS_AT_ONCE - len(list_checkpoints(folder))) + BEST_AT_ONCE -
                      os.path.exists(os.path.join(folder, BEST)))


def list_checkpoints(folder):
    """The paths of the checkpoints in a folder, the oldest first."""
    paths = glob.glob(os.path.join(glob.escape(folder), 'epoch-*[0-9]-picture-*[0-9]'))
    return sorted(paths, key=lambda path: [int(number) for number in re.findall(r'\d+', os.path.basename(path))])


def _write_state(folder, state):
    with open(os.path.join(folder, 'state.json'), 'w') as file:
        json.dump(dict(state=state, digest=_digest(folder, state)), file)


def _read_state(folder):
    """What _write_state wrote; raises OSError or ValueError if it, or the index of the weights, is damaged."""
    content = read_json(os.path.join(folder, 'state.json'))
    if content.get('digest') != _digest(folder, content.get('state')):
        raise ValueError('the digest is wrong')
    os.stat(os.path.join(folder, 'weights.data-00000-of-00001'))
    return content['state']


def _digest(folder, state):
    # TensorFlow compares the checksums of the weights, which are in the index, but nothing guards the index itself.
    with open(os.path.join(folder, 'weights.index'), 'rb') as file:
        return digest(json.dumps(state, sort_keys=True).encode(), file.read())
