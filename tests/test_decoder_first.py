"""Training the decoder alone first, and then everything: --decoder-first."""
import numpy as np

from fcn8.data import images
from fcn8.results import saved_model
from fcn8.settings import PUBLISHED
from tests.support import PICTURE, RunCase


class DecoderFirst(RunCase):
    def probability(self, folder):
        """What the model of a run gives for a picture."""
        with saved_model.load(folder) as model:
            (_, probability), = model.segment([images.read_picture(PICTURE)])
        return probability

    def test_everything_starts_from_the_decoder_trained_at_the_default_rate(self):
        frozen = self.new_run(epochs=2, learning_rate=PUBLISHED.learning_rate, freeze_encoder=True)
        self.assertEqual([entry['best'] for entry in self.history(frozen)], [True] * 2)
        # At this rate no weight changes any more.
        everything = self.new_run(epochs=1, learning_rate=1e-30, decay=True, decoder_first=2)
        np.testing.assert_allclose(self.probability(everything), self.probability(frozen), atol=1e-6)

    def test_a_resumed_run_equals_an_unbroken_one(self):
        unbroken = [entry['cross_entropy'] for entry in self.history(self.new_run(epochs=2, decoder_first=1))]
        folder = self.new_run(epochs=1, decoder_first=1)
        self.printed.truncate(0)
        self.assertEqual(self.main('--resume', folder, '--epochs', '2')[0], 0)
        self.assertNotIn('decoder alone', self.printed.getvalue())
        np.testing.assert_allclose([entry['cross_entropy'] for entry in self.history(folder)], unbroken, atol=1e-6)
