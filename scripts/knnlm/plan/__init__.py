"""What jobs need: memory, minutes, disk and GPUs, from the settings and no run."""
