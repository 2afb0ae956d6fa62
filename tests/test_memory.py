"""The memory of freed tensors, which is kept where it makes the training faster."""
import platform
import subprocess
import sys
import unittest

from tests.support import ROOT, Case

COUNT_PAGE_FAULTS = """
import resource, sys
from fcn8 import command_line
command_line.begin(sys.argv[1:])
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b'x' * 2 ** 26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@unittest.skipUnless(platform.libc_ver()[0] == 'glibc', 'another library manages the memory')
class KeepFreed(Case):
    def page_faults(self, *arguments):
        """Those of filling 64 MiB for the second time, when the first have been freed."""
        return int(subprocess.check_output([sys.executable, '-c', COUNT_PAGE_FAULTS, '--data-dir', self.folder,
                                            *arguments], cwd=ROOT))

    def test_a_training_of_the_whole_network_keeps_it(self):
        self.assertLess(self.page_faults(), 1000)

    def test_one_on_features_gives_it_back(self):
        self.assertGreater(self.page_faults('--freeze-encoder'), 30)  # pages are 2 MiB at most
