"""What happens around a training step: the schedule, validation, checkpoints, the folder of the run."""
