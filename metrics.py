"""Scores of a road segmentation."""
import numpy as np


def road_iou(road, labels):
    """Intersection over union of the road class, over all the pixels that count.

    road: bool [...], True where road is predicted.
    labels: bool [..., 2], one-hot (background, road); a pixel of which neither is set does not count.

    Returns a float between 0 and 1; nan where there is road neither in the prediction nor in the labels.
    """
    predicted, actual = road & labels.any(axis=-1), labels[..., 1]
    union = np.count_nonzero(predicted | actual)
    return np.count_nonzero(predicted & actual) / union if union else float('nan')
