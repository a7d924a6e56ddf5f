"""What jobs need: memory, minutes, disk and GPUs. Imports nothing but the runtime."""
