"""The learning rate of each step."""
from fcn8.tf1 import tf

import numpy as np

import main
from fcn8.settings import Settings
from fcn8.training.callback import Callback
from tests.support import Case


class Decay(Case):
    def rates(self, history=(), **settings):
        """The learning rates that steps are fed with: two epochs of seven pictures, but those in the history."""
        rates = []

        class RecordingRates(Callback):
            def on_batch_end(self, loss, pictures):
                rates.append(loss)
                super().on_batch_end(loss, pictures)

        def get_batches_fn(batch_size):
            return iter([(np.zeros(count), np.zeros(count)) for count in (2, 2, 2, 1)])

        get_batches_fn.pictures = 7
        image, label, keep_prob, rate = (tf.placeholder(tf.float32) for _ in range(4))
        with tf.Session() as sess:
            callback = RecordingRates(Settings(epochs=2, batch_size=2, learning_rate=6., **settings), get_batches_fn)
            callback.history.extend(history)
            main.train_nn(sess, 2, 2, get_batches_fn, tf.no_op(), tf.identity(rate), image, label, keep_prob, rate,
                          callback)
        return rates

    def test_the_rate_rises_for_a_quarter_of_the_training_and_falls_to_0(self):
        np.testing.assert_allclose(self.rates(decay=True), [1.5, 4.5, 5.5, 4.5, 3.5, 2.5, 1.5, 0.5], rtol=1e-6)

    def test_a_resumed_training_goes_on_with_its_rate(self):
        first_epoch = dict(epoch=1, cross_entropy=1.)
        np.testing.assert_allclose(self.rates([first_epoch], decay=True), [3.5, 2.5, 1.5, 0.5], rtol=1e-6)

    def test_without_decay_the_rate_stays(self):
        self.assertEqual(self.rates(), [6] * 8)
