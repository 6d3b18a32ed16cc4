"""Generation as a pipeline of diffusers'."""
