"""What would stop or spoil a run, seen before it starts: pictures, tokens, prompts, disk, memory, SLURM."""
