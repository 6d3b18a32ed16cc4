"""What happens around the steps: noise annealing, samples, files written."""

from callbacks.beta_annealing import BetaAnnealing
from callbacks.cache_writer import CacheWriter
from callbacks.sample_generation import SampleGeneration
from callbacks.training_speed import TrainingSpeed
from callbacks.video_writer import VideoWriter

__all__ = ["BetaAnnealing", "CacheWriter", "SampleGeneration", "TrainingSpeed", "VideoWriter"]
