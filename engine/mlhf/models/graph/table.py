"""The operations that a graph may use, by name. Needs no torch; nothing outside it is ever called.

A name says which of torch's callables it is: ``torch.cat``, ``functional.linear``,
``tensor.view`` (a method, with the tensor as its first argument), ``attribute.T``; and
``mlhf.roi_align``, which torch does not have. Left out is what reads files, calls back into
Python, or has a shape that depends on values.
"""

PART = "part"  # takes one tensor out of the tuple that another node gives

_MATH = """
abs neg negative positive square sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin
acos atan sinh cosh tanh asinh acosh atanh arctan atan2 erf erfc erfinv lgamma digamma sigmoid
logit relu floor ceil round trunc frac sign sgn reciprocal nan_to_num clamp clamp_min clamp_max
clip add sub subtract rsub mul multiply div divide true_divide floor_divide remainder fmod pow
float_power maximum minimum fmax fmin lerp addcmul addcdiv hypot xlogy heaviside logaddexp
logaddexp2 softmax log_softmax isnan isinf isfinite eq ne lt le gt ge not_equal less less_equal
greater greater_equal logical_and logical_or logical_not logical_xor bitwise_and bitwise_or
bitwise_not bitwise_xor where masked_fill deg2rad rad2deg sinc
"""
_REDUCE = """
sum mean prod std var amax amin max min argmax argmin norm logsumexp all any cumsum cumprod cummax
cummin median nanmean nansum std_mean var_mean aminmax count_nonzero
"""
_LINEAR = "matmul mm bmm mv dot inner outer ger addmm addbmm baddbmm addmv chain_matmul kron cross"
_SHAPE = """
reshape permute transpose swapaxes swapdims moveaxis movedim t squeeze unsqueeze flatten unflatten
ravel flip roll rot90 narrow select index_select gather take_along_dim scatter scatter_add
index_add index_fill diagonal tril triu diag_embed diag split chunk unbind tensor_split tile
broadcast_to clone sort argsort topk detach repeat_interleave
"""
_TORCH = """
cat concat concatenate stack hstack vstack dstack einsum tensordot broadcast_tensors meshgrid
bilinear atleast_1d atleast_2d atleast_3d arange linspace zeros ones full eye empty zeros_like
ones_like full_like empty_like rand randn rand_like randn_like bernoulli normal scalar_tensor
tensor as_tensor outer fliplr flipud pixel_shuffle pixel_unshuffle channel_shuffle embedding
layer_norm group_norm batch_norm instance_norm conv1d conv2d conv3d conv_transpose1d
conv_transpose2d conv_transpose3d max_pool1d max_pool2d max_pool3d avg_pool1d adaptive_avg_pool1d
prelu rrelu dropout feature_dropout alpha_dropout selu celu threshold cosine_similarity cdist
conv_tbc _weight_norm _shape_as_tensor searchsorted bucketize tril_indices triu_indices polar
complex view_as_real view_as_complex real imag rms_norm block_diag cartesian_prod clone
scaled_dot_product_attention
"""
_TENSOR = """
view view_as reshape_as expand expand_as repeat contiguous to type type_as float double half
bfloat16 int long bool short byte unfold masked_fill_ fill_ zero_ add_ sub_ mul_ div_ pow_ neg_
clamp_ clamp_min_ clamp_max_ relu_ sigmoid_ tanh_ exp_ sqrt_ rsqrt_ abs_ square_ copy_ bernoulli_
uniform_ normal_ squeeze_ unsqueeze_ transpose_ t_ scatter_ scatter_add_ index_copy index_copy_
index_fill_ index_add_ index_put index_put_ new_zeros new_ones new_full new_empty new_tensor tril_
triu_ detach_ requires_grad_ addcmul_ addcdiv_ lerp_ floor_ round_ reciprocal_ logical_not_
__getitem__ __setitem__ __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__
__imul__ __truediv__ __rtruediv__ __itruediv__ __div__ __rdiv__ __idiv__ __floordiv__
__rfloordiv__ __mod__ __rmod__ __pow__ __rpow__ __ipow__ __matmul__ __rmatmul__ __neg__ __pos__
__abs__ __invert__ __and__ __rand__ __or__ __ror__ __xor__ __eq__ __ne__ __lt__ __le__ __gt__
__ge__ sum_to_size cpu
"""
_FUNCTIONAL = """
linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d adaptive_max_pool1d_with_indices
adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices max_pool1d_with_indices
max_pool2d_with_indices max_pool3d_with_indices lp_pool1d lp_pool2d lp_pool3d unfold fold pad
interpolate upsample grid_sample affine_grid pixel_shuffle pixel_unshuffle channel_shuffle
batch_norm layer_norm group_norm instance_norm local_response_norm rms_norm normalize embedding
embedding_bag one_hot scaled_dot_product_attention multi_head_attention_forward dropout dropout1d
dropout2d dropout3d alpha_dropout feature_alpha_dropout relu relu_ relu6 leaky_relu leaky_relu_
elu elu_ selu selu_ celu celu_ gelu silu mish softplus softsign softmax softmin log_softmax
gumbel_softmax sigmoid hardsigmoid logsigmoid tanh tanhshrink hardtanh hardtanh_ hardswish
hardshrink softshrink threshold threshold_ prelu rrelu glu cosine_similarity pairwise_distance
"""
_LINALG = "norm vector_norm matrix_norm matmul multi_dot diagonal"
_FFT = "fft ifft fft2 ifft2 fftn ifftn rfft irfft rfft2 irfft2 rfftn irfftn fftshift ifftshift"


def _names(prefix: str, *lists: str) -> set[str]:
    return {f"{prefix}.{name}" for words in lists for name in words.split()}


OPERATIONS = frozenset(
    _names("torch", _MATH, _REDUCE, _LINEAR, _SHAPE, _TORCH)
    | _names("tensor", _MATH, _REDUCE, _LINEAR, _SHAPE, _TENSOR)
    | _names("functional", _FUNCTIONAL)
    | _names("linalg", _LINALG)
    | _names("fft", _FFT)
    | _names("attribute", "T mT H mH real imag data")
    | _names("mlhf", "roi_align")
    | {PART}
)

# They make tensors out of numbers, on the device that the network is on.
FACTORIES = frozenset(
    _names(
        "torch",
        "arange linspace zeros ones full eye empty rand randn normal scalar_tensor tensor "
        "as_tensor tril_indices triu_indices",
    )
)
RANDOM = frozenset(
    _names("torch", "rand randn rand_like randn_like bernoulli normal rrelu dropout")
    | _names("torch", "feature_dropout alpha_dropout")
    | _names("tensor", "bernoulli_ uniform_ normal_")
    | _names("functional", "dropout dropout1d dropout2d dropout3d alpha_dropout")
    | _names("functional", "feature_alpha_dropout gumbel_softmax rrelu")
)

# Uninitialised memory may hold what others left there, so these give zeros.
ZEROED = {
    "torch.empty": "torch.zeros",
    "torch.empty_like": "torch.zeros_like",
    "tensor.new_empty": "tensor.new_zeros",
}


def in_place(operation: str) -> bool:
    """Whether an operation changes its first argument."""
    name = operation.partition(".")[2]
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name != "__invert__")
    return name.endswith("_") and name != "requires_grad_"
