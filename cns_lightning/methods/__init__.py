"""Methods of continual personalization, one a file."""
