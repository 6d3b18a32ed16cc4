"""What happens around the steps: noise annealing, samples, averages, files written."""

from callbacks.adapter_export import AdapterExport
from callbacks.atomic_checkpoint import AtomicCheckpoint
from callbacks.beta_annealing import BetaAnnealing
from callbacks.ema import AdapterEMA
from callbacks.finite import FiniteTraining
from callbacks.layer_scores import LayerScores
from callbacks.monitors import MemoryUse, ProgressFile, TrainingSpeed
from callbacks.prediction_writers import CacheWriter, CaptionWriter, VideoWriter
from callbacks.run_settings import RunSettings
from callbacks.sample_generation import SampleGeneration
from callbacks.training_curves import TrainingCurves
