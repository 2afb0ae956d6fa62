"""The page of a run: everything in one file, the worst pictures first, needing nothing else."""
import os
import re
import shutil
import unittest
import warnings
from html.parser import HTMLParser
from unittest import mock

import numpy as np

from fcn8.data import images, kitti, labels
from fcn8.data.classes import KITTI_ROAD, Classes
from fcn8.results import charts, pages, report
from tests.support import Case, TrainedCase, read, write


class Report(Case):
    def setUp(self):
        super().setUp()
        self.labels = dict(kitti.pair_with_labels(self.write_kitti(count=3)))
        self.pictures = sorted(self.labels)
        self.report = report.Report(self.folder, KITTI_ROAD, self.labels)
        write(self.path('settings.json'), b'{"settings": {}, "made_with": {}, "about": {}, "changes": []}')

    def add(self, path, share=0., part='test'):
        """Add a picture with this share of its road found."""
        picture = images.read_picture(path)
        probability = labels.read_label(self.labels.get(path, self.labels[self.pictures[0]]))[..., 1].astype(np.float32)
        probability[np.random.RandomState(0).rand(*probability.shape) > share] = 0
        self.report.add(path, picture, probability, part)

    def names(self):
        """The sections and pictures of the page, in their order."""
        path = self.report.write('The title', 'a < b', dict(seed=0),
                                 [dict(epoch=1, cross_entropy=1., learning_rate=1e-3)], 1., self.pictures)
        return re.findall('(?<=<h3>)[VT].*?(?=</h3>)|(?<=data-name=").*?(?=")', read(path).decode())

    def test_validation_first_and_the_worst_pictures_first(self):
        self.assertEqual(self.report.format_scores(), '')
        without_label = self.path('um_000009.png')
        shutil.copy(self.pictures[0], without_label)
        for path, share in zip(self.pictures, (0.9, 0.1, 0.5)):
            self.add(path, share)
        self.add(without_label)
        self.add(self.pictures[0], 0.3, part='validation')
        self.assertEqual(self.names(), ['Validation', 'um_000000.png', 'Test', 'um_000001.png', 'um_000002.png',
                                        'um_000000.png', 'um_000009.png'])
        self.assertRegex(self.report.format_scores(), r'\nvalidation( +[\d.]+){9}\ntest( +[\d.]+){9}$')

    def test_pictures_that_would_make_it_too_large_are_counted_and_scored(self):
        scores = set()
        for limits, count in ((dict(MAX_PICTURES=3), 3), (dict(MAX_PICTURES=2), 2), (dict(MAX_BYTES=25000), 2)):
            with mock.patch.multiple(pages, **limits):
                self.report = report.Report(self.folder, KITTI_ROAD, self.labels)
                for path, share in zip(self.pictures, (0.9, 0.1, 0.5)):
                    self.add(path, share)
                self.assertEqual(self.names()[1:], [f'um_00000{number}.png' for number in (1, 2, 0)[:count]])
                self.assertEqual('1 more not shown: its' in read(self.path('index.html')).decode(), count == 2)
                scores.add(self.report.format_scores())
        self.assertEqual(len(scores), 1)

    def test_right_and_wrong_pixels_have_colours_of_their_own(self):
        """Of road and of any classes; what is ignored keeps its colour."""
        picture, label = np.zeros((1, 5, 3), np.uint8), np.zeros((1, 5, 2), bool)
        label[0, [0, 1], 1] = label[0, [2, 3], 0] = True  # road, road, background, background, ignored
        road = np.float32([[0.9, 0.1, 0.9, 0.1, 0.9]])
        kitti_like = Classes([dict(name=name, grey=grey, counts=name != 'sky')
                              for grey, name in enumerate(('ground', 'road', 'sky'))])
        for classes, prediction, expected in (
                (KITTI_ROAD, road, ['green', 'red', 'blue', 'none', 'none']),
                (kitti_like, (road > 0.5).astype(np.uint8), ['green', 'red', 'red', 'green', 'none'])):
            with mock.patch.object(pages, 'encode', return_value=dict(views={})) as encode, \
                    mock.patch.object(labels, 'read_label', lambda *args: label):
                report.Report(self.folder, classes, {'a_1.png': 'a_road_1.png'}).add('a_1.png', picture, prediction)
            errors = encode.call_args[0][2]['Errors']
            found = ['none' if not pixel.any() else ('red', 'green', 'blue')[pixel.argmax()] for pixel in errors[0]]
            self.assertEqual(found, expected)

    def test_it_is_compared_with_the_run_before(self):
        for name, share in (('1.5', 0.5), ('2.5', 0.9)):
            shutil.copy(self.path('settings.json'), self.path('runs', name, ''))
            self.report = report.Report(self.path('runs', name), KITTI_ROAD, self.labels)
            self.add(self.pictures[0], share)
            self.names()
            page = read(self.path('runs', name, 'index.html')).decode()
            self.assertEqual('Compared with run 1.5' in page, name == '2.5')
        others = Classes([dict(name=name, grey=grey, counts=True) for grey, name in enumerate('ab')])
        shutil.copy(self.path('settings.json'), self.path('runs', '3.5', ''))
        self.report = report.Report(self.path('runs', '3.5'), others, {})
        picture = images.read_picture(self.pictures[0])
        self.report.add(self.pictures[0], picture, np.zeros(picture.shape[:2], np.uint8))
        self.names()
        self.assertNotIn('Compared', read(self.path('runs', '3.5', 'index.html')).decode())
        scores = re.search('<th scope="row">recall</th>' + r'\s*<td>(.*?)</td>' * 3, page).groups()
        self.assertRegex(scores[2], r'^\+0')
        self.assertAlmostEqual(float(scores[0]) - float(scores[1]), float(scores[2]), places=3)


class Charts(unittest.TestCase):
    def chart(self, *losses):
        return charts.charts([dict(epoch=number, cross_entropy=loss, learning_rate=1e-3)
                              for number, loss in enumerate(losses, start=1)])[0]

    def test_the_cross_entropy_is_drawn_on_a_logarithmic_scale(self):
        heights = [float(height) for height in re.findall(r'<use .*?y="([\d.]+)" style="fill: var\(--accent',
                                                          self.chart(1, 0.1, 0.01))]
        self.assertEqual(len(heights), 3)
        self.assertAlmostEqual(heights[1] - heights[0], heights[2] - heights[1], delta=0.1)

    def test_values_that_can_hardly_be_drawn(self):
        for losses in ([0.5], [0.5, 0.5], [0.0300, 0.0301], [0., 0.]):
            with warnings.catch_warnings():
                warnings.simplefilter('error')
                self.assertIn('</svg>', self.chart(*losses))

    def test_they_are_described_and_take_the_colours_of_the_page(self):
        chart = self.chart(2, 1)
        self.assertIn('<title>cross entropy in training: cross entropy from 2 after epoch 1 to 1 after epoch 2</title>',
                      chart)
        self.assertNotRegex(chart, '#0[0-9a-f]{5}')
        self.assertEqual(chart, self.chart(2, 1))


class Page(TrainedCase):
    def html(self):
        return read(os.path.join(self.run_folder, 'index.html')).decode()

    def test_holds_everything_and_needs_nothing(self):
        links, pictures = [], []

        class Parser(HTMLParser):
            def handle_starttag(self, tag, attributes):
                attributes = dict(attributes)
                links.extend(attributes[name] for name in ('src', 'href') if attributes.get(name))
                if attributes.get('class') == 'picture':
                    pictures.append((attributes['data-name'], attributes['data-note']))

        Parser().feed(self.html())
        self.assertTrue(all(link.startswith('data:') for link in links))
        self.assertEqual(sum(link.startswith('data:image/jpeg') for link in links), 4 * len(pictures))
        self.assertEqual(len(pictures), 1 + 2)  # of validation and test
        self.assertIn('<b>&_0.png', [name for name, _ in pictures])  # as text, not as an element
        for _, note in pictures:
            self.assertRegex(note, r'^road IoU [01]\.\d{3}$')
        for text in ('cross entropy', 'road IoU', 'learning_rate', 'Using the weights of the best epoch, '):
            self.assertIn(text, self.html())
