"""Which of several processes this one is, and the GPU that it gets, according to the environment.

To be imported before TensorFlow, which looks for GPUs when it is loaded.
"""
import glob
import json
import os
import shutil

DRIVERS_GPUS = '/proc/driver/nvidia/gpus/*'
HOROVOD = ('HOROVOD_', 'OMPI_COMM_WORLD_')  # prefixes of the variables that horovodrun, or its mpirun, sets
EXAMPLE = '{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}'

INSTALL_HOROVOD = ('HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_PYTORCH=1 '
                   'HOROVOD_WITHOUT_MXNET=1 python -m pip install -q --no-build-isolation -r '
                   'requirements-distributed.txt')


def prepare(environment):
    """Give this process one of the machine's GPUs.

    environment: os.environ, or a dict like it.

    Returns its rank, the number of processes, its rank among those of this machine, and the addresses of all,
    (host, port), where a TF_CONFIG has them. Raises ValueError if the TF_CONFIG makes no sense.
    """
    rank, size, local_rank, workers = _read_horovod(environment) or _read_tf_config(environment) or (0, 1, 0, [])
    if size > 1:
        gpus = environment.get('CUDA_VISIBLE_DEVICES')
        if gpus is None:
            environment['CUDA_VISIBLE_DEVICES'] = str(local_rank)
        elif ',' in gpus:  # otherwise there is none, or one that has been chosen for this process
            environment['CUDA_VISIBLE_DEVICES'] = ','.join(gpus.split(',')[local_rank:local_rank + 1])
    return rank, size, local_rank, workers


def _read_horovod(environment):
    for prefix in HOROVOD:
        texts = (environment.get(prefix + name, '') for name in ('RANK', 'SIZE', 'LOCAL_RANK'))
        rank, size, local_rank = (int(text) if text.isdigit() else 0 for text in texts)
        if size > 1:
            return rank, size, local_rank, []
    return None


def _read_tf_config(environment):
    try:
        config = json.loads(environment.get('TF_CONFIG') or '{}')
        if not config.get('cluster'):
            return None
        cluster, task = config['cluster'], config['task']
        # TensorFlow's own tools also know a cluster of one chief and workers, which come after it.
        tasks = [(job, index) for job in ('chief', 'worker') for index in range(len(cluster.get(job, [])))]
        addresses = [cluster[job][index].rpartition(':') for job, index in tasks]
        workers = [(host, int(port)) for host, _, port in addresses]
        rank = tasks.index((task['type'], int(task['index'])))
        if not set(cluster) <= {'chief', 'worker'} or not all(host and 0 < port < 65536 for host, port in workers):
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f'TF_CONFIG is not of the form {EXAMPLE}, with the index of this process') from None
    return rank, len(workers), [host for host, _ in workers[:rank]].count(workers[rank][0]), workers


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


PARENT = int(os.environ.get('FCN8_LAUNCHER', 0))  # of --processes, or 0
PROBLEM = ''  # with TF_CONFIG: a training has to end with it, and whatever else imports this does not
try:
    RANK, SIZE, LOCAL_RANK, WORKERS = prepare(os.environ)
except ValueError as error:
    RANK, SIZE, LOCAL_RANK, WORKERS, PROBLEM = 0, 1, 0, [], str(error)
