"""Which of the processes that horovodrun has started this one is, and the GPU that it gets.

To be imported before TensorFlow, which looks for GPUs when it is loaded.
"""
import glob
import os
import shutil

DRIVERS_GPUS = '/proc/driver/nvidia/gpus/*'
LAUNCHERS = ('HOROVOD_', 'OMPI_COMM_WORLD_')  # prefixes of the variables that horovodrun, or its mpirun, sets


def prepare(environment):
    """Give this process one of the machine's GPUs; returns its rank and the number of processes.

    environment: os.environ, or a dict like it.
    """
    for launcher in LAUNCHERS:
        texts = (environment.get(launcher + name, '') for name in ('RANK', 'SIZE', 'LOCAL_RANK'))
        rank, size, local_rank = (int(text) if text.isdigit() else 0 for text in texts)
        if size > 1:
            gpus = environment.get('CUDA_VISIBLE_DEVICES')
            if gpus is None:
                environment['CUDA_VISIBLE_DEVICES'] = str(local_rank)
            elif ',' in gpus:  # otherwise there is none, or one that has been chosen for this process
                environment['CUDA_VISIBLE_DEVICES'] = ','.join(gpus.split(',')[local_rank:local_rank + 1])
            return rank, size
    return 0, 1


def use_first_gpu(environment):
    """Hide all GPUs but the first from a process that is alone; returns how many GPUs it could have used.

    Otherwise TensorFlow would take some memory of each. Without an NVIDIA driver, 0 is returned. Processes that this
    one starts inherit that, so those that are to use the other GPUs have to be started before.

    environment: os.environ, or a dict like it.
    """
    gpus = glob.glob(DRIVERS_GPUS) or [path for path in [shutil.which('nvidia-smi')] if path]
    chosen = environment.get('CUDA_VISIBLE_DEVICES', ','.join(map(str, range(len(gpus))))).split(',')
    if SIZE == 1 and len(chosen) > 1:
        environment['CUDA_VISIBLE_DEVICES'] = chosen[0]
    return len(chosen) if gpus and chosen[0] not in ('', '-1') else 0


RANK, SIZE = prepare(os.environ)
