"""The page of a run: everything in one file, the worst pictures first, working in a browser."""
import html
import os
import re
import shutil
import subprocess
import unittest
from html.parser import HTMLParser
from unittest import mock

import numpy as np

from fcn8.data import images, kitti
from fcn8.data.classes import KITTI_ROAD
from fcn8.results import report
from tests.support import Case, TrainedCase, read


class Report(Case):
    def setUp(self):
        super().setUp()
        self.labels = dict(kitti.pair_with_labels(self.write_kitti(count=3)))
        self.pictures = sorted(self.labels)
        self.report = report.Report(self.folder, KITTI_ROAD, self.labels)

    def add(self, path, share=0., part='test'):
        """Add a picture with this share of its road found."""
        picture = images.read_picture(path)
        probability = kitti.read_label(self.labels.get(path, self.labels[self.pictures[0]]))[..., 1].astype(np.float32)
        probability[np.random.RandomState(0).rand(*probability.shape) > share] = 0
        self.report.add(path, picture, probability, part)

    def names(self):
        path = self.report.write('The title', 'a < b', dict(seed=0), [dict(epoch=1, cross_entropy=1.)])
        return re.findall('<h2>[VT].*?</h2>|data-name=".*?"', read(path).decode())

    def test_validation_first_and_the_worst_pictures_first(self):
        self.assertEqual(self.report.format_scores(), '')
        without_label = self.path('um_000009.png')
        shutil.copy(self.pictures[0], without_label)
        for path, share in zip(self.pictures, (0.9, 0.1, 0.5)):
            self.add(path, share)
        self.add(without_label)
        self.add(self.pictures[0], 0.3, part='validation')
        self.assertEqual(self.names(), ['<h2>Validation: the worst first</h2>', 'data-name="um_000000.png"',
                                        '<h2>Test um</h2>', 'data-name="um_000001.png"', 'data-name="um_000002.png"',
                                        'data-name="um_000000.png"', 'data-name="um_000009.png"'])
        self.assertRegex(self.report.format_scores(), r'\nvalidation( +[\d.]+){9}\ntest( +[\d.]+){9}$')

    def test_pictures_that_would_make_it_too_large_are_counted_and_scored(self):
        scores = set()
        for limits, count in ((dict(MAX_PICTURES=3), 3), (dict(MAX_PICTURES=2), 2), (dict(MAX_BYTES=20000), 2)):
            with mock.patch.multiple(report, **limits):
                self.report = report.Report(self.folder, KITTI_ROAD, self.labels)
                for path, share in zip(self.pictures, (0.9, 0.1, 0.5)):
                    self.add(path, share)
                worst = [f'data-name="um_00000{number}.png"' for number in (1, 2, 0)[:count]]
                self.assertEqual(self.names()[1:], worst)
                self.assertEqual('1 more test pictures' in read(self.path('index.html')).decode(), count == 2)
                scores.add(self.report.format_scores())
        self.assertEqual(len(scores), 1)


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
        self.assertEqual(sum(link.startswith('data:image/jpeg') for link in links), 3 * len(pictures))
        self.assertEqual(len(pictures), 1 + 2)  # of validation and test
        self.assertIn('<b>&_0.png', [name for name, _ in pictures])  # as text, not as an element
        for _, note in pictures:
            self.assertRegex(note, r'^road IoU [01]\.\d{3}$')
        for text in ('cross entropy', 'validation', 'learning_rate', 'Using the weights of the best epoch, '):
            self.assertIn(text, self.html())

    @unittest.skipUnless(shutil.which('chromium'), 'chromium is not installed')
    def test_in_a_browser(self):
        """Opened with a click, and gone through with the keyboard; errors of the page end up in its title."""
        script = '''<script>
            const seen = [], key = name => dialog.dispatchEvent(new KeyboardEvent('keydown', {key: name}));
            const shown = () => [dialog.open, dialog.querySelector('b').textContent, view,
                                 dialog.querySelector('img').naturalWidth > 0].join(' ');
            setTimeout(() => { pictures[0].click(); setTimeout(() => { seen.push(shown());
            key('ArrowRight'); key('3'); setTimeout(() => { seen.push(shown());
            key('ArrowLeft'); key('ArrowLeft'); dialog.querySelector('[data-view=photo]').click();
            setTimeout(() => { seen.push(shown()); dialog.querySelector('[data-close]').click();
            seen.push(dialog.open); document.title = errors.concat(seen).join('; ');
            }, 100); }, 100); }, 100); }, 100);</script>'''
        catch = '''<script>const errors = []; addEventListener('error', event => errors.push(event.message));
            console.error = text => errors.push(text);</script>'''
        with open('index.html', 'w', encoding='utf-8') as file:
            file.write(self.html().replace('<title>', catch + '<title>').replace('</body>', script + '</body>'))
        dom = subprocess.run(
            ['chromium', '--headless=new', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=4000', '--dump-dom',
             'file://' + os.path.abspath('index.html')], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=100).stdout.decode()
        names = re.findall('data-name="(.*?)"', self.html())
        self.assertEqual(html.unescape(re.search('<title>(.*?)</title>', dom).group(1)), html.unescape(
            'true {} overlay true; true {} probability true; true {} photo true; false'.format(*names)))
