"""Scores: of road and of other classes, against sums done the slow way."""
import unittest

import numpy as np

from fcn8.results import metrics


def some_pixels(*shape):
    """Probabilities that lie on thresholds and between them, and labels: background, road and ignored pixels."""
    random = np.random.RandomState(1)
    probability = random.choice(np.append(np.arange(0, 1025, 32) / 1024, random.rand(30)), shape).astype(np.float32)
    kind = random.choice([0, 0, 1, 1, 2], shape)
    road = (kind == 1) & (random.rand(*shape) < probability + 0.2)
    return probability, np.stack([(kind < 2) & ~road, road], axis=-1)


class RoadScores(unittest.TestCase):
    def scores(self, probability, labels):
        scores = metrics.RoadScores()
        scores.add(probability, labels)
        return scores

    def test_equal_sums_done_the_slow_way(self):
        probability, labels = some_pixels(4, 20, 30)
        scores = self.scores(probability, labels)
        rows = []
        for threshold in np.arange(metrics.THRESHOLDS) / metrics.THRESHOLDS:
            road = probability > threshold if threshold else np.ones_like(probability, bool)
            tp, fp = (road & labels[..., 1]).sum(), (road & labels[..., 0]).sum()
            fn, tn = (~road & labels[..., 1]).sum(), (~road & labels[..., 0]).sum()
            rows.append((threshold, tp / (tp + fp) if tp + fp else np.nan, tp / (tp + fn), 2 * tp / (2 * tp + fp + fn),
                         fp / (fp + tn), fn / (tp + fn), tp / (tp + fp + fn), (tp + tn) / (tp + fp + fn + tn)))
        expected = dict(zip(('threshold', 'precision', 'recall', 'f1', 'false_positive_rate', 'false_negative_rate',
                             'road_iou', 'pixel_accuracy'), np.transpose(rows)))
        curves = scores.curves()
        self.assertEqual(set(curves), set(expected))
        for name, curve in expected.items():
            np.testing.assert_allclose(curves[name], curve, rtol=1e-12, err_msg=name)
        summary, best = scores.summary(), expected['f1'].argmax()
        self.assertEqual(summary['max_f'], expected['f1'].max())
        self.assertEqual((summary['threshold'], summary['recall']), (best / 1024, expected['recall'][best]))
        self.assertEqual(summary['road_iou'], expected['road_iou'][512])
        highest = [np.nanmax(expected['precision'][expected['recall'] >= recall])
                   for recall in (0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1)]
        self.assertAlmostEqual(summary['average_precision'], np.mean(highest), places=12)

    def test_scores_of_parts_add_up(self):
        probability, labels = some_pixels(6, 20, 30)
        parts = [self.scores(probability[part], labels[part]) for part in (slice(0, 1), slice(1, 6))]
        self.assertEqual(sum(parts, metrics.RoadScores()).summary(), self.scores(probability, labels).summary())

    def test_a_perfect_and_an_inverted_prediction(self):
        _, labels = some_pixels(1, 20, 30)
        perfect = self.scores(labels[..., 1].astype(np.float32), labels).summary()
        for name in ('road_iou', 'pixel_accuracy', 'max_f', 'average_precision'):
            self.assertEqual(perfect[name], 1, name)
        self.assertEqual(self.scores(1 - labels[..., 1].astype(np.float32), labels).summary()['road_iou'], 0)

    def test_an_undefined_score_is_none(self):
        """Without road, and without any pixel that is not ignored; JSON has no nan."""
        background = self.scores(np.zeros(2, np.float32), np.array([[True, False]] * 2)).summary()
        self.assertEqual([background[name] for name in ('pixel_accuracy', 'road_iou', 'max_f', 'threshold')],
                         [1, None, None, None])
        self.assertEqual(set(metrics.RoadScores().summary().values()), {None})
        self.assertIn(' -', metrics.format_table([('all', background)]))


class ClassScores(unittest.TestCase):
    def test_equal_sums_done_the_slow_way(self):
        random = np.random.RandomState(0)
        probability = random.dirichlet([1] * 4, size=(3, 5, 7)).astype(np.float32)
        labels = np.eye(5, dtype=bool)[random.randint(1, 5, (3, 5, 7))][..., :4]  # 0 is nowhere, 4 is ignored
        probability[..., 0] = 0
        scores = metrics.ClassScores(list('abcd'))
        predicted, not_ignored, ious = probability.argmax(-1).astype(np.uint8), labels.any(-1), {}
        scores.add(predicted, labels)
        for index, name in enumerate('abcd'):
            both = (predicted == index) & labels[..., index]
            either = ((predicted == index) & not_ignored) | labels[..., index]
            ious['iou/' + name] = both.sum() / either.sum() if either.any() else None
        summary = scores.summary()
        self.assertIsNone(summary['iou/a'])
        for name, iou in ious.items():
            self.assertEqual(summary[name], iou)
        self.assertAlmostEqual(summary['mean_iou'], np.mean([iou for iou in ious.values() if iou is not None]))
        self.assertAlmostEqual(summary['pixel_accuracy'], (predicted == labels.argmax(-1))[not_ignored].mean())

    def test_scores_of_parts_add_up(self):
        prediction, labels = np.array([0, 1, 2, 0], np.uint8), np.eye(3, dtype=bool)[[0, 1, 1, 2]]
        whole, parts = metrics.ClassScores(list('abc')), [metrics.ClassScores(list('abc')) for _ in range(2)]
        whole.add(prediction, labels)
        for part, half in zip(parts, (slice(2), slice(2, 4))):
            part.add(prediction[half], labels[half])
        self.assertEqual(sum(parts, metrics.ClassScores(list('abc'))).summary(), whole.summary())
        self.assertEqual(set(metrics.ClassScores(list('abc')).summary().values()), {None})
        table = metrics.format_table([('test', whole.summary())]).splitlines()
        self.assertEqual(table[0].split(), ['mean', 'IoU', 'accuracy', 'a', 'b', 'c'])
        self.assertEqual(table[1].split(), ['test', '0.3333', '0.5000', '0.5000', '0.5000', '0.0000'])
