"""Language models of transformers: their own configurations, small, with their own initial values.

A batch is a dict of keyword arguments, and what is returned a ``ModelOutput``.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bench.foreign import tasks
from bench.foreign.networks.network import Network
from bench.foreign.networks.of_transformers import given, maker, of_logits
from bench.foreign.tasks import PADDING, START, token_loss

_WIDTH, _HEADS, _LAYERS = 32, 4, 2
_BASE = {
    "vocab_size": tasks.VOCABULARY,
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": 2 * _WIDTH,
    "max_position_embeddings": 64,
    "pad_token_id": PADDING,
    "bos_token_id": START,
    "eos_token_id": START,
}
_GPT = {"n_embd": _WIDTH, "n_layer": _LAYERS, "n_head": _HEADS, "n_positions": 64}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
_T5 = {"d_model": _WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": _LAYERS, "num_heads": _HEADS}
_BART = {
    "d_model": _WIDTH,
    **{f"{side}_layers": _LAYERS for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": _HEADS for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")},
    "decoder_start_token_id": START,
}

# By model type. Options that a configuration does not know are harmless.
_CAUSAL: dict[str, dict[str, Any]] = {
    "gpt2": _GPT,
    "gpt_neox": {"rotary_pct": 0.5},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": _WIDTH},
    "bloom": {"n_layer": _LAYERS, "n_head": _HEADS},
    "llama": {},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 8},
    "mixtral": {**_EXPERTS, "num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8},
    "falcon": {},
    "phi": {},
    "mamba": {"state_size": 8},
    "rwkv": {"attention_hidden_size": _WIDTH, "context_length": 64},
}
_MASKED: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "mpnet": {},
    "fnet": {},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": START},
}
_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": _WIDTH, "n_layers": _LAYERS, "n_heads": _HEADS, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "longformer": {"attention_window": 8},
    "squeezebert": {"embedding_size": _WIDTH},
}
_TRANSLATORS: dict[str, dict[str, Any]] = {
    "t5": {**_T5, "decoder_start_token_id": START},
    "bart": _BART,
    "pegasus": _BART,
}


def networks() -> dict[str, Network]:
    """Return the networks by name."""
    found: dict[str, Network] = {}
    for kind, options in _CAUSAL.items():
        found[f"{kind}, causal"] = Network(
            maker(kind, "AutoModelForCausalLM", {**_BASE, **options, "use_cache": False}),
            given(tasks.continued_text, lambda x, y: {"input_ids": x}),
            of_logits(token_loss),
        )
    for kind, options in _MASKED.items():
        found[f"{kind}, masked"] = Network(
            maker(kind, "AutoModelForMaskedLM", {**_BASE, **options}),
            given(tasks.masked_text, lambda x, y: {"input_ids": x}),
            of_logits(token_loss),
        )
    labels = {"num_labels": tasks.KINDS}
    for kind, options in _CLASSIFIERS.items():
        found[f"{kind}, classifier"] = Network(
            maker(kind, "AutoModelForSequenceClassification", {**_BASE, **options, **labels}),
            given(tasks.kinds_of_text, _attended),
            of_logits(F.cross_entropy),
        )
    for kind, options in _TRANSLATORS.items():
        found[f"{kind}, translator"] = Network(
            maker(kind, "AutoModelForSeq2SeqLM", {**_BASE, **options, "use_cache": False}),
            given(tasks.translations, _shifted),
            of_logits(token_loss),
        )
    found["gpt2, with the loss that it returns"] = Network(
        maker("gpt2", "AutoModelForCausalLM", {**_BASE, **_GPT, "use_cache": False}),
        given(tasks.continued_text, lambda x, y: {"input_ids": x, "labels": x}),
        lambda z, y: z.loss,
    )
    return found


def _attended(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {"input_ids": x, "attention_mask": (x != PADDING).long()}


def _shifted(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {"input_ids": x, "decoder_input_ids": F.pad(y[:, :-1], (1, 0), value=START)}
