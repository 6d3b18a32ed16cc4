"""MusicInfuser (arXiv 2503.14505) as plain torch: networks, diffusion, media and metrics."""
