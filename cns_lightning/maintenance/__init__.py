"""What is done to a finished run: undo, verification."""
