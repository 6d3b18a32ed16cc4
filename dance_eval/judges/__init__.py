"""Models that watch and listen to clips and answer questions about them."""
