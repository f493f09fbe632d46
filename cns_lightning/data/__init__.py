"""What a stage learns from: pictures, their augmentation, prompts and order."""
