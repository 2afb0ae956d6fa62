"""What happens around the steps of train_nn(): counting, the learning rate, validation, printed lines, records."""
import contextlib
import math
import time

import numpy as np

from fcn8 import distributed, errors, progress
from fcn8.errors import UserError
from fcn8.results import metrics
from fcn8.settings import PUBLISHED
from fcn8.tf1 import tf
from fcn8.training import variables
from fcn8.training.schedule import slanted_triangle
from fcn8.training.validation import Validation

LONG_TRAINING = 600  # seconds from which on a training without a GPU says how long it takes


class Callback:
    """Called around the steps of a training of which nothing is recorded.

    settings: settings.Settings.
    batches: data.kitti.Batches, if it is known.

    history: an entry for each finished epoch, a dict.
    pictures, loss_sum, seconds: of the epoch in progress, in all processes; loss_sum is its cross entropy summed over
    the pictures.
    folder: of the run, once it has one.
    """

    def __init__(self, settings=PUBLISHED, batches=None):
        self.settings, self.batches, self.history, self.folder = settings, batches, [], None
        self._sess = self._validation = self._bar = None
        self._stop_requested = lambda: None
        self._start_count()

    def _start_count(self):
        self.pictures, self.loss_sum, self.seconds = 0, 0., 0.

    @property
    def next_epoch(self):
        """The number of the epoch to train next, from 1."""
        return len(self.history) + 1

    @property
    def keep_prob(self):
        """The share of units that dropout keeps, for the next step."""
        return self.settings.keep_prob

    @property
    def learning_rate(self):
        """The learning rate of the next step, at the end of an epoch of its last one."""
        if not self.settings.decay:
            return self.settings.learning_rate
        pictures_of_step = self.settings.batch_size * distributed.size()
        steps = -(-self.batches.pictures // pictures_of_step)  # of an epoch
        # In the middle of the step; resumed with more processes, there may be fewer steps than have been taken.
        done = min(self.pictures / pictures_of_step + 0.5, steps - 0.5) / steps
        return self.settings.learning_rate * slanted_triangle((len(self.history) + done) / self.settings.epochs)

    @contextlib.contextmanager
    def training(self, segmenter, decoder):
        """Prepare the session of a Segmenter for train_nn(), and leave it with the weights to use.

        decoder: {name: array}, first values for variables of the decoder.
        """
        self._sess = segmenter.sess
        if self.batches.validation_pictures:
            self._validation = Validation(segmenter, self.batches)
        segmenter.prepare_export()
        self._regularisation = tf.losses.get_regularization_loss()
        variables.initialize(self._sess, decoder)
        self._restore()
        self.folder, self.history, self.pictures, self.loss_sum, self.seconds = distributed.gather(
            (self.folder, self.history, self.pictures, self.loss_sum, self.seconds))[0]
        distributed.remember(self.folder)
        if self.next_epoch <= self.settings.epochs:
            distributed.broadcast_variables(self._sess)
            if self.history or self.pictures:
                self._fast_forward()
        self._sess.graph.finalize()  # an op added in a loop would slow it down more and more: now it raises
        # The chief stops, and the others when it has gone: so the checkpoint has what all have done.
        with errors.stop_between_steps(heeded=distributed.is_chief()) as self._stop_requested:
            try:
                yield
            except OSError as error:
                if error.errno in errors.OUTPUT_IS_GONE:  # nothing is wrong with the training
                    self._stop_if_requested()
                    self._save()
                raise
            finally:
                if self._bar:  # or an error would follow it on its line
                    with contextlib.suppress(OSError):
                        self._bar.close()
            self._save()
        self._use_best()

    def _fast_forward(self):
        """Advance pictures and dropout to where an uninterrupted run would be."""
        epochs = len(self.history)
        self.batches.skip(epochs + (0 if self.settings.freeze_encoder else self.settings.decoder_first), self.pictures)
        trained = epochs * self.batches.pictures + self.pictures
        variables.fast_forward_dropout(self._sess, self.batches.image_shape, trained // distributed.size())

    def for_trained_network(self):
        """A Callback with nothing left to train: for the whole network around the decoder that this one has trained."""
        callback = Callback(self.settings, self.batches)
        callback.history, callback.folder = self.history, self.folder
        return callback

    def describe_progress(self):
        """How far the training is, as text."""
        if self.next_epoch > self.settings.epochs:
            return 'after the last epoch'
        return f'in epoch {self.next_epoch}, after {self.pictures} of its pictures'

    def on_epoch_begin(self):
        """Called before the batches of an epoch."""
        self._bar = progress.bar(desc=f'Epoch {self.next_epoch}/{self.settings.epochs}', initial=self.pictures,
                                 total=getattr(self.batches, 'pictures', None), unit='picture', leave=False)
        self._clock = time.time()

    def on_batch_end(self, loss, pictures):
        """Called after a step, with its mean cross entropy and the number of its pictures in each process.

        Raises UserError if the loss is not finite, and Stopped, after a checkpoint, if a stop has been requested.
        """
        if not np.isfinite(loss):
            raise UserError(f'the loss became {loss} in epoch {self.next_epoch}, picture {self.pictures + 1}: try a '
                            f'lower --learning-rate than {self.settings.learning_rate}, or a lower --l2')
        now = time.time()
        self.seconds += now - self._clock
        self._clock = now
        self.pictures += pictures * distributed.size()
        self.loss_sum += float(loss) * pictures * distributed.size()
        self._stop_if_requested()  # before the bar, since a Ctrl-C may also have ended what shows it, like tee
        self._bar.set_postfix_str(f'cross entropy {self.loss_sum / self.pictures:#.3g}', refresh=False)
        self._bar.update(self.pictures - self._bar.n)

    def _stop_if_requested(self):
        stop = self._stop_requested()
        if stop:
            self._save()
            raise errors.Stopped(stop)

    def on_epoch_end(self):
        """Called after the batches of an epoch: validates, and prints a line."""
        self._bar.close()
        if not self.pictures:
            raise UserError('there are no pictures to train on')
        entry = dict(epoch=self.next_epoch, cross_entropy=self.loss_sum / self.pictures, seconds=self.seconds,
                     pictures_per_second=self.pictures / max(self.seconds, 1e-9), learning_rate=self.learning_rate)
        if self._validation and self._validation.is_due(self.history, self.settings.epochs):
            entry.update(self._validation.run(self.seconds, self._add_overlay, self._stop_if_requested))
        self.history.append(entry)
        self._start_count()
        self._record(entry)
        print('Epoch {epoch}/{epochs}: {scores}, {pictures_per_second:.1f} pictures/s, {seconds:.0f} s'.format(
            epochs=self.settings.epochs, scores=format_scores(entry), **entry))

    def _restore(self):
        """Restore the last checkpoint."""

    def _save(self):
        """Write a checkpoint."""

    def _use_best(self):
        """Use the weights of the best epoch."""

    def _record(self, entry):
        """Write the entry of an epoch to the history."""

    def _add_overlay(self, name, overlay):
        """Show an overlay with the epoch in progress."""


class RecordingCallback(Callback):
    """Called around the steps of a run, whose history, checkpoints and best weights the chief keeps.

    run_folder: training.run_folder.RunFolder.

    best: entry of the history of the epoch whose weights are in use, once training() has ended.
    """

    def __init__(self, settings, batches, run_folder):
        super().__init__(settings, batches)
        self._run_folder, self.folder = run_folder, run_folder.path
        self.best = self._checkpoints = self._events = None
        self._best_since = 1  # the first epoch that is compared with others: the weights of earlier ones are lost
        self._step_ends = []

    def _restore(self):
        self._checkpoints, self.folder = self._run_folder.open_checkpoints(), self._run_folder.path
        state = self._checkpoints.restore(self._sess)
        if state:
            self.history, self.pictures = state['history'], state['pictures']
            self.loss_sum, self.seconds = state['loss_sum'], state['seconds']
            # The weights may be lost, or those of an epoch that comes again, where a kill has lost its checkpoint.
            self._best_since = min(self._checkpoints.best_epoch or math.inf, len(self.history) + 1)
            print('Resuming ' + self.describe_progress())
        self._events = self._run_folder.begin(self._sess.graph, self.history)

    def on_batch_end(self, loss, pictures):
        super().on_batch_end(loss, pictures)
        if len(self._step_ends) < 2:
            self._step_ends.append(time.time())
            if len(self._step_ends) == 2:  # the first step also prepares the graph: the second is like all others
                self._announce_duration(pictures)
        if self._checkpoints.is_due():
            self._save()
            self._clock = time.time()

    def _announce_duration(self, pictures):
        seconds = (self._step_ends[1] - self._step_ends[0]) * self.batches.pictures / (
            pictures * distributed.size()) * (self.settings.epochs - len(self.history))
        if seconds > LONG_TRAINING and not self._run_folder.gpu and not self.settings.freeze_encoder:
            progress.write(f'At the speed of its first steps the training takes {seconds / 3600:.1f} hours. A new run '
                           'with --recipe frozen takes minutes: it trains the decoder alone')

    def _record(self, entry):
        entry['regularisation'] = float(self._sess.run(self._regularisation))
        if not math.isfinite(entry['regularisation']):
            raise UserError('the regularisation became {regularisation} in epoch {epoch}: try a lower --learning-rate, '
                            'or a lower --l2'.format(**entry))
        entry['best'] = best_epoch(self.history[self._best_since - 1:]) is entry
        self._run_folder.write_history(self.history)
        self._events.add_epoch(entry)
        if entry['best']:
            self._checkpoints.keep_best(self._sess, entry['epoch'])

    def _save(self):
        self._checkpoints.save(self._sess, dict(history=self.history, pictures=self.pictures, loss_sum=self.loss_sum,
                                                seconds=self.seconds))

    def _use_best(self):
        self._events.close()
        self._checkpoints.use_best(self._sess)
        self.best = self.history[(self._checkpoints.best_epoch or len(self.history)) - 1]
        self._run_folder.write_best(self.best)
        print(self.describe_best())

    def describe_best(self):
        """Which epoch's weights are in use, in a sentence."""
        return '{}, {} of {}: {}'.format(
            'Using the weights of the best epoch' if self._checkpoints.best_epoch else
            'The weights of the best epoch are lost; using those of the last',
            self.best['epoch'], len(self.history), format_scores(self.best))

    def _add_overlay(self, name, overlay):
        self._events.add_overlay(name, overlay)


def best_epoch(history):
    """The entry of the epoch with the highest road or mean IoU in validation, or without any the lowest cross entropy.

    history: of a Callback, at least one entry.
    """
    scored = [entry for entry in history if 'validation' in entry]
    if scored:
        return max(scored, key=lambda entry: metrics.decisive(entry['validation']) or 0)
    return min(history, key=lambda entry: entry['cross_entropy'])


def format_scores(entry):
    """Cross entropy and validation scores of an entry of the history, as text."""
    text = 'cross entropy {cross_entropy:#.3g}'.format(**entry)
    if 'validation' in entry:
        text += ', validation ' + metrics.format_headline(entry['validation'])
    return text
