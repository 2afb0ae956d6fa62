"""Scores of a segmentation: of road as the KITTI road benchmark defines them, in the image plane; of classes the IoU.

Fritsch, Kuehnl and Geiger, A New Performance Measure and Evaluation Benchmark for Road Detection Algorithms, ITSC 2013.
Road is the positive class, and ignored pixels are left out. A pixel is classified as road if its road probability
exceeds a threshold; with the numbers of true and false positives and negatives TP, FP, TN and FN at that threshold:

    precision              TP / (TP + FP)
    recall                 TP / (TP + FN)
    F1                     2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall
    false positive rate    FP / (FP + TN)
    false negative rate    FN / (TP + FN)
    MaxF                   the highest F1 of all thresholds
    average precision      the mean, over the recalls 0, 0.1 .. 1, of the highest precision at that recall or more
    road IoU               TP / (TP + FP + FN), intersection over union
    pixel accuracy         (TP + TN) / (TP + FP + TN + FN)

The benchmark's server counts pixels in a bird's eye view; here they are those of the picture. They are counted in
histograms: scikit-learn's scores would need every pixel in memory.

With other classes each pixel is classified as the most probable one. The IoU of a class is TP / (TP + FP + FN) of its
pixels; the mean IoU is the mean over the classes that occur in labels or predictions.
"""
import numpy as np

THRESHOLDS = 1024  # a power of two: 0.5 is among them, and a float32 times it is exact


def scores_of(classes):
    """Scores for data.classes.Classes, to which no picture has been added."""
    return RoadScores() if classes.is_road else ClassScores(classes.names)


class RoadScores:
    """Histograms of the pixels over their road probability: the scores of parts add up, in constant memory.

    road, background: int64 [THRESHOLDS], by the label. Element k counts the pixels whose probability exceeds
    k / THRESHOLDS and does not exceed (k + 1) / THRESHOLDS; the first one has those of probability 0, too.
    """

    def __init__(self, road=0, background=0):
        self.road = np.zeros(THRESHOLDS, np.int64) + road
        self.background = np.zeros(THRESHOLDS, np.int64) + background

    def __add__(self, other):
        return RoadScores(self.road + other.road, self.background + other.background)

    def add(self, probability, labels):
        """Count the pixels of some pictures.

        probability: float32 [...], of road, finite.
        labels: bool [..., 2], one-hot (background, road); an all-False pixel is ignored.
        """
        bins = np.clip(np.ceil(probability * np.float32(THRESHOLDS)).astype(np.int32) - 1, 0, THRESHOLDS - 1)
        self.background += np.bincount(bins[labels[..., 0]], minlength=THRESHOLDS)
        self.road += np.bincount(bins[labels[..., 1]], minlength=THRESHOLDS)

    def curves(self):
        """{name: float [THRESHOLDS]} of what depends on the threshold, which rises from 0; nan for 0 / 0."""
        true_positives, false_positives = (np.cumsum(counts[::-1])[::-1] for counts in (self.road, self.background))
        false_negatives = self.road.sum() - true_positives
        with np.errstate(invalid='ignore'):
            return {'threshold': np.arange(THRESHOLDS) / THRESHOLDS,
                    'precision': true_positives / (true_positives + false_positives),
                    'recall': true_positives / self.road.sum(),
                    'f1': 2 * true_positives / (2 * true_positives + false_positives + false_negatives),
                    'false_positive_rate': false_positives / self.background.sum(),
                    'false_negative_rate': false_negatives / self.road.sum(),
                    'road_iou': true_positives / (self.road.sum() + false_positives),
                    'pixel_accuracy': (true_positives + self.background.sum() - false_positives) / (
                        self.road.sum() + self.background.sum())}

    def summary(self):
        """{name: float between 0 and 1, or None for 0 / 0}.

        road_iou and pixel_accuracy are those at 0.5, where the overlays change colour; precision, recall and the two
        rates those at `threshold`, the lowest at which F1 is max_f, as in the benchmark's tables.
        """
        curves = self.curves()
        best = int(np.argmax(curves['f1']))
        values = {'road_iou': curves['road_iou'][THRESHOLDS // 2],
                  'pixel_accuracy': curves['pixel_accuracy'][THRESHOLDS // 2],
                  'average_precision': self._average_precision(curves['precision'])}
        values.update((title, curves[name][best] if self.road.any() else np.nan) for title, name in (
            ('max_f', 'f1'), ('threshold', 'threshold'), ('precision', 'precision'), ('recall', 'recall'),
            ('false_positive_rate', 'false_positive_rate'), ('false_negative_rate', 'false_negative_rate')))
        return {name: None if np.isnan(value) else float(value) for name, value in values.items()}

    def _average_precision(self, precision):
        found = np.cumsum(self.road[::-1])[::-1]
        if not found[0]:
            return np.nan
        # Whole numbers: in floats, 3 of 10 pixels are less than a recall of 3 * 0.1.
        return np.mean([np.nanmax(precision[10 * found >= tenths * found[0]]) for tenths in range(11)])


class ClassScores:
    """The confusion matrix of some classes: the scores of parts add up.

    names: of the classes.
    confusion: int64 [classes, classes], the pixels by their label (rows) and prediction (columns).
    """

    def __init__(self, names, confusion=0):
        self.names = names
        self.confusion = np.zeros((len(names), len(names)), np.int64) + confusion

    def __add__(self, other):
        return ClassScores(self.names, self.confusion + other.confusion)

    def add(self, prediction, labels):
        """Count the pixels of some pictures.

        prediction: uint8 [...], the most probable class.
        labels: bool [..., classes], one-hot; an all-False pixel is ignored.
        """
        # The ones of the one-hot: a tenth of the time of any() and argmax().
        pixels, label = np.divmod(np.flatnonzero(labels), len(self.names))
        pairs = label * len(self.names) + prediction.ravel()[pixels]
        self.confusion += np.bincount(pairs, minlength=self.confusion.size).reshape(self.confusion.shape)

    def summary(self):
        """{name: float between 0 and 1, or None for 0 / 0}: mean_iou, pixel_accuracy and iou/<class>."""
        correct = np.diag(self.confusion)
        with np.errstate(invalid='ignore'):
            ious = correct / (self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - correct)
            values = {'mean_iou': np.nanmean(ious) if self.confusion.any() else np.nan,
                      'pixel_accuracy': correct.sum() / self.confusion.sum()}
        values.update(('iou/' + name, iou) for name, iou in zip(self.names, ious))
        return {name: None if np.isnan(value) else float(value) for name, value in values.items()}


def headline(summary):
    """The two most important scores of a summary(), {title: score}; the first decides which epoch is the best."""
    if 'road_iou' in summary:
        return {'road IoU': summary['road_iou'], 'MaxF': summary['max_f']}
    return {'mean IoU': summary['mean_iou'], 'accuracy': summary['pixel_accuracy']}


def format_headline(summary):
    """The headline() as text."""
    return ', '.join(f'{title} {np.nan if score is None else score:.3f}'
                     for title, score in headline(summary).items())


def decisive(summary):
    """The score that decides which epoch is the best: road IoU or mean IoU, a float or None."""
    return next(iter(headline(summary).values()))


def titled(summary):
    """{title: score} of a summary(), in the order of a table; for road with the names of the benchmark's tables."""
    if 'road_iou' not in summary:
        return dict(headline(summary), **{name[len('iou/'):]: value for name, value in summary.items()
                                          if name.startswith('iou/')})
    return {title: summary[name] for title, name in (
        ('MaxF', 'max_f'), ('threshold', 'threshold'), ('AP', 'average_precision'), ('precision', 'precision'),
        ('recall', 'recall'), ('FPR', 'false_positive_rate'), ('FNR', 'false_negative_rate'), ('road IoU', 'road_iou'),
        ('accuracy', 'pixel_accuracy'))}


def format_table(scores):
    """[(name, summary)] as the text of a table with a line for each."""
    width = max(len(name) for name, _ in scores)
    titles = list(titled(scores[0][1]))
    lines = [' ' * width + ''.join(map('  {:>9}'.format, titles))]
    for name, summary in scores:
        cells = ('-' if value is None else f'{value:.4f}' for value in titled(summary).values())
        lines.append('{:{}}'.format(name, width) + ''.join(
            '  {:>{}}'.format(cell, max(9, len(title))) for cell, title in zip(cells, titles)))
    return '\n'.join(lines)
