"""Video and audio files, the latent cache, and contact sheets."""
