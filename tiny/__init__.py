"""Training of wan-tiny: the VAE on crops of drawn clips, then the transformer and its encoders by flow matching."""
