"""What diffusers and transformers give us; nothing here knows about methods."""
