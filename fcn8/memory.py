"""How glibc treats the memory that tensors leave behind."""
import ctypes
import platform

# Parameters of mallopt, from glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_freed():
    """Have glibc keep the memory of freed tensors for the next step; before there are other threads.

    It would give that of each large one back to the system, and a CPU would spend up to a fifth of a step on clearing
    its pages again. Without effect where another library manages the memory.
    """
    if platform.libc_ver()[0] == 'glibc':
        libc = ctypes.CDLL(None)
        # One heap that only grows: those of other arenas, one for each thread, cannot hold large tensors.
        for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2 ** 28)):
            libc.mallopt(parameter, value)
