"""Networks of transformers for images, sounds and series."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.foreign import tasks
from bench.foreign.networks.network import Network
from bench.foreign.networks.of_transformers import given, maker, of_logits
from bench.foreign.tasks import START, token_loss

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_IMAGE = {**_SMALL, "image_size": 32, "patch_size": 4, "num_channels": 3}
_TEXT = {
    **_SMALL,
    "vocab_size": tasks.VOCABULARY,
    "max_position_embeddings": 16,
    "bos_token_id": START,
    "eos_token_id": START,
}
_SOUND = {
    **_SMALL,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 4, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 32,
    "apply_spec_augment": False,
    "num_labels": tasks.KINDS,
}
_WHISPER = {
    "vocab_size": tasks.VOCABULARY,
    "num_mel_bins": tasks.BANDS,
    "d_model": 32,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")},
    "max_source_positions": tasks.FRAMES // 2,
    "max_target_positions": 16,
    "decoder_start_token_id": START,
    "bos_token_id": START,
    "eos_token_id": START,
    "pad_token_id": tasks.PADDING,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "use_cache": False,
}
_SEGFORMER = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [16, 32],
    "patch_sizes": [3, 3],
    "strides": [2, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 32,
    "num_labels": tasks.CLASSES,
}
_MAE = {
    **_IMAGE,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 64,
}
_PATCHTST = {
    "num_input_channels": 2,
    "context_length": 32,
    "prediction_length": 8,
    "patch_length": 8,
    "patch_stride": 4,
    "d_model": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 64,
    "loss": "mse",
}


def networks() -> dict[str, Network]:
    """Return the networks by name."""
    pixels = given(tasks.images, lambda x, y: {"pixel_values": x})
    classifier = "AutoModelForImageClassification"
    labels = {"num_labels": tasks.CLASSES}
    waves = given(tasks.sounds, lambda x, y: {"input_values": x})
    audio = "AutoModelForAudioClassification"
    entropy = of_logits(F.cross_entropy)
    return {
        "vit, images": Network(maker("vit", classifier, {**_IMAGE, **labels}), pixels, entropy),
        "dinov2, images": Network(
            maker("dinov2", classifier, {**_IMAGE, **labels}), pixels, entropy
        ),
        "clip, images and text": Network(
            maker("clip", "AutoModel", _contrastive()),
            given(tasks.captions, lambda x, y: {"pixel_values": x, "input_ids": y}),
            lambda z, y: _matching(z.logits_per_image, y),
        ),
        "siglip, images and text": Network(
            maker("siglip", "AutoModel", _contrastive()),
            given(tasks.captions, lambda x, y: {"pixel_values": x, "input_ids": y}),
            lambda z, y: _pairwise(z.logits_per_image, y),
        ),
        "segformer, masks": Network(
            maker("segformer", "AutoModelForSemanticSegmentation", _SEGFORMER),
            given(tasks.masks, lambda x, y: {"pixel_values": x}),
            lambda z, y: F.cross_entropy(F.interpolate(z.logits, size=y.shape[1:]), y),
        ),
        "vit_mae, with the loss that it returns": Network(
            maker("vit_mae", "ViTMAEForPreTraining", _MAE), pixels, lambda z, y: z.loss
        ),
        "wav2vec2, sounds": Network(maker("wav2vec2", audio, _SOUND), waves, entropy),
        "hubert, sounds": Network(maker("hubert", audio, _SOUND), waves, entropy),
        "whisper, spectrograms": Network(
            maker("whisper", "WhisperForConditionalGeneration", _WHISPER),
            given(tasks.spectrograms, _dictated),
            of_logits(token_loss),
        ),
        "patchtst, series": Network(
            maker("patchtst", "PatchTSTForPrediction", _PATCHTST),
            given(tasks.series, lambda x, y: {"past_values": x}),
            lambda z, y: F.mse_loss(z.prediction_outputs, y),
        ),
    }


def _contrastive() -> dict[str, object]:
    return {"text_config": _TEXT, "vision_config": _IMAGE, "projection_dim": 32}


def _same_digit(captions: Tensor) -> Tensor:
    """Return which captions (B, T) tell of the same digit, (B, B)."""
    digits = (captions[:, 0] - tasks.FIRST_WORD) // 4
    return (digits[:, None] == digits).float()


def _matching(logits: Tensor, captions: Tensor) -> Tensor:
    """Return CLIP's loss, where captions of the same digit match equally well."""
    wanted = _same_digit(captions)
    wanted = wanted / wanted.sum(1, keepdim=True)
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2


def _pairwise(logits: Tensor, captions: Tensor) -> Tensor:
    """Return SigLIP's loss: each pair's, summed over the texts."""
    signs = 2 * _same_digit(captions) - 1
    return -F.logsigmoid(signs * logits).sum(1).mean()


def _dictated(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    start = torch.full_like(y[:, :1], START)
    return {"input_features": x, "decoder_input_ids": torch.cat([start, y[:, :-1]], 1)}
