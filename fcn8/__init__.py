"""Everything that a training script grows into, one concern per file; main.py has the network and its training.

command_line   from the arguments to a call of main.run, or of predict and evaluate
settings       every option of a training, once
errors         errors in one line, stops between steps
files          files that are whole or not there at all, locks
launcher       which of several processes this one is
processes      starts several processes and watches them
lifeline       notices that another process has ended
distributed    what several processes do together
collectives    TensorFlow's own way to do that
progress       bars
tf1            TensorFlow's 1.x interface in TensorFlow 1.15 and 2
device         GPU or CPU, precision
memory         what glibc does with that of freed tensors
data/          what comes in: downloads, VGG-16, pictures, labels, batches, the demo's scenes
results/       what comes out: probabilities, overlays, scores, the exported model, the page of a run
training/      what happens around a step: schedule, validation, features, checkpoints, the folder of a run

training imports results, results imports data, and data the files above; nothing here imports main or helper.
"""
