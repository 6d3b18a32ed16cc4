"""Audio encoders of transformers with random weights, as wide as those of the small parts."""

from pathlib import Path

import torch
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertForCTC,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

WIDTH, NUM_LAYERS = 96, 3
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}
KINDS = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "wav2vec2-ctc": (Wav2Vec2Config, Wav2Vec2ForCTC),
    "hubert": (HubertConfig, HubertModel),
    "hubert-ctc": (HubertConfig, HubertForCTC),
    "wavlm": (WavLMConfig, WavLMModel),
    "data2vec-audio": (Data2VecAudioConfig, Data2VecAudioModel),
    "wav2vec2-bert": (Wav2Vec2BertConfig, Wav2Vec2BertModel),
}


WITH_HEAD = {
    "wav2vec2": Wav2Vec2ForAudioFrameClassification,
    "wav2vec2-bert": Wav2Vec2BertForAudioFrameClassification,
}


def write_audio_encoder(
    folder: Path, kind: str = "wav2vec2", *, seed: int = 1, head: bool = False
) -> Path:
    """An encoder with its feature extractor, perhaps a head of positions; the folder itself."""
    config, model = KINDS[kind]
    sizes = SIZES | ({"num_labels": 6} if head else {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        (WITH_HEAD[kind] if head else model)(config(**sizes)).save_pretrained(folder)
    is_bert = kind == "wav2vec2-bert"
    extractor = SeamlessM4TFeatureExtractor if is_bert else Wav2Vec2FeatureExtractor
    extractor().save_pretrained(folder)
    return folder
