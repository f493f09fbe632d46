"""From YAML files and a command line to checked settings, for `fit`, `launch` and `compare`."""
