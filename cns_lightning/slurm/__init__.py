"""What `launch` writes and what a run under SLURM has to know."""
