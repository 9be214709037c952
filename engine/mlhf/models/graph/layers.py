"""The layers of torch.nn that a graph may hold, and the arguments that make one again.

Needs no torch. ``name?`` is a flag that says whether a layer has that parameter.
"""

_CONV = "in_channels out_channels kernel_size stride padding dilation groups bias? padding_mode"
_TRANSPOSED = (
    "in_channels out_channels kernel_size stride padding output_padding groups bias? dilation "
    "padding_mode"
)
_RNN = "input_size hidden_size num_layers bias batch_first dropout bidirectional"
_BATCH_NORM = "num_features eps momentum affine track_running_stats"
_MAX = "kernel_size stride padding dilation return_indices ceil_mode"
_AVG = "kernel_size stride padding ceil_mode count_include_pad"

LAYERS: dict[str, tuple[str, ...]] = {
    name: tuple(arguments.split())
    for names, arguments in {
        "Linear": "in_features out_features bias?",
        "Bilinear": "in1_features in2_features out_features bias?",
        "Conv1d Conv2d Conv3d": _CONV,
        "ConvTranspose1d ConvTranspose2d ConvTranspose3d": _TRANSPOSED,
        "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d": (
            _BATCH_NORM
        ),
        "LayerNorm": "normalized_shape eps elementwise_affine bias?",
        "RMSNorm": "normalized_shape eps elementwise_affine",
        "GroupNorm": "num_groups num_channels eps affine",
        "LocalResponseNorm": "size alpha beta k",
        "Embedding": (
            "num_embeddings embedding_dim padding_idx max_norm norm_type scale_grad_by_freq sparse"
        ),
        "EmbeddingBag": (
            "num_embeddings embedding_dim max_norm norm_type scale_grad_by_freq mode sparse "
            "include_last_offset padding_idx"
        ),
        "LSTM": _RNN + " proj_size",
        "GRU": _RNN,
        "RNN": _RNN + " nonlinearity",
        "LSTMCell GRUCell": "input_size hidden_size bias",
        "RNNCell": "input_size hidden_size bias nonlinearity",
        "MultiheadAttention": (
            "embed_dim num_heads dropout bias? add_bias_kv? add_zero_attn kdim vdim batch_first"
        ),
        "MaxPool1d MaxPool2d MaxPool3d": _MAX,
        "AvgPool1d": _AVG,
        "AvgPool2d AvgPool3d": _AVG + " divisor_override",
        "LPPool1d LPPool2d": "norm_type kernel_size stride ceil_mode",
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d": "output_size",
        "AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d": "output_size return_indices",
        "Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout": "p inplace",
        "ReLU ReLU6 SELU SiLU Mish Hardswish Hardsigmoid": "inplace",
        "Identity Sigmoid LogSigmoid Tanh Tanhshrink Softsign Flatten_": "",
        "LeakyReLU": "negative_slope inplace",
        "ELU CELU": "alpha inplace",
        "GELU": "approximate",
        "Softplus": "beta threshold",
        "Hardtanh": "min_val max_val inplace",
        "Hardshrink Softshrink": "lambd",
        "Threshold": "threshold value inplace",
        "PReLU": "num_parameters",
        "RReLU": "lower upper inplace",
        "Softmax Softmin LogSoftmax": "dim",
        "GLU": "dim",
        "Flatten": "start_dim end_dim",
        "Unflatten": "dim unflattened_size",
        "PixelShuffle": "upscale_factor",
        "PixelUnshuffle": "downscale_factor",
        "ChannelShuffle": "groups",
        "Upsample": "size scale_factor mode align_corners recompute_scale_factor",
        "ZeroPad1d ZeroPad2d ZeroPad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d "
        "ReplicationPad1d ReplicationPad2d ReplicationPad3d CircularPad1d CircularPad2d "
        "CircularPad3d": "padding",
        "ConstantPad1d ConstantPad2d ConstantPad3d": "padding value",
        "Fold": "output_size kernel_size dilation padding stride",
        "Unfold": "kernel_size dilation padding stride",
        "CosineSimilarity": "dim eps",
    }.items()
    for name in names.split()
    if name != "Flatten_"
}

# What has this many layers inside builds as many in Python.
MAX_STACKED = 128
