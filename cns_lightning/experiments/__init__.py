"""Several runs: comparisons of methods, searches of settings, their tables and figures."""
