"""Which of the processes that horovodrun has started this one is, and the GPU that it gets.

To be imported before TensorFlow, which looks for GPUs when it is loaded.
"""
import os

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


RANK, SIZE = prepare(os.environ)
