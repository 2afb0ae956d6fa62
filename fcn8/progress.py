"""Progress bars, which the chief alone shows."""
from tqdm import tqdm

from fcn8 import launcher

write = tqdm.write


def bar(*args, **settings):
    """tqdm's bar, of which only one process shows anything."""
    if launcher.RANK:
        settings['disable'] = True
    return tqdm(*args, **settings)
