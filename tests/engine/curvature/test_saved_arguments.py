"""Every argument that torch saves with a node is read by the node's rule, or ignored for a reason.

A new version of torch that saves one more fails here, until someone looks at what it means.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.rules import RULES
from mlhf.curvature.view_ops import VIEW_RULES

_SHAPE = "a shape, which the output's own and those of the tangents imply"
_LAYOUT = "which layout the backward's result takes"
_INDEX = "where the maxima are is what the saved indices say"
_BACKWARD = "for the backward of the rows only: a sparse or dense gradient"

IGNORED = {
    "AddmmBackward0": {
        "mat1_sym_sizes": _SHAPE,
        "mat1_sym_strides": _LAYOUT,
        "mat2_sym_sizes": _SHAPE,
        "mat2_sym_strides": _LAYOUT,
    },
    "ConvolutionBackward0": {"bias_sym_sizes_opt": _SHAPE},
    "EmbeddingBackward0": {"sparse": _BACKWARD, "weight_sym_argsize_0": _SHAPE},
    "EmbeddingBagBackward0": {
        "result1": "which bag an index is in, which the offsets say",
        "sparse": _BACKWARD,
        "weight_sym_argsize_0": _SHAPE,
    },
    "ExpandBackward0": {"self_sym_sizes": _SHAPE},
    "MaxPool2DWithIndicesBackward0": {
        "ceil_mode": _INDEX,
        "dilation": _INDEX,
        "kernel_size": _INDEX,
        "padding": _INDEX,
        "self": _SHAPE,
        "stride": _INDEX,
    },
    "MmBackward0": {
        "mat2_sym_sizes": _SHAPE,
        "mat2_sym_strides": _LAYOUT,
        "self_sym_sizes": _SHAPE,
        "self_sym_strides": _LAYOUT,
    },
    "NativeBatchNormBackward0": {
        "result1": "the batch's mean, read in train mode alone",
        "result2": "likewise",
    },
    "NativeLayerNormBackward0": {"bias": "its tangent alone enters, not its value"},
    "SplitBackward0": {"self_sym_sizes": _SHAPE},
    "UnsafeSplitBackward0": {"self_sym_sizes": _SHAPE},
    "UnsafeViewBackward0": {"self_sym_sizes": _SHAPE},
    "ViewBackward0": {"self_sym_sizes": _SHAPE},
}


def _leaf(*shape):
    return torch.rand(*shape).add_(0.1).requires_grad_()


def _bag():
    bag, scales = nn.EmbeddingBag(5, 2, mode="sum"), _leaf(2, 3)
    return bag(torch.randint(0, 5, (2, 3)), per_sample_weights=scales)


def _hooked():
    layer = nn.Linear(2, 2)
    layer.register_full_backward_hook(lambda *_: None)
    return layer(torch.ones(1, 2))


def _batch_norm(training):
    mean, var = torch.zeros(3), torch.ones(3)
    return lambda: F.batch_norm(_leaf(2, 3), mean, var, _leaf(3), _leaf(3), training)


MAKE = {  # an output whose own node is the one that is named
    "AbsBackward0": lambda: _leaf(2).abs(),
    "AddBackward0": lambda: _leaf(2) + _leaf(2),
    "AddmmBackward0": lambda: torch.addmm(_leaf(2), _leaf(2, 3), _leaf(3, 2)),
    "BackwardHookFunctionBackward": _hooked,
    "BmmBackward0": lambda: torch.bmm(_leaf(2, 2, 3), _leaf(2, 3, 2)),
    "CloneBackward0": lambda: _leaf(2).clone(),
    "ConvolutionBackward0": lambda: F.conv2d(_leaf(1, 2, 4, 4), _leaf(3, 2, 2, 2), _leaf(3)),
    "EluBackward0": lambda: F.elu(_leaf(2)),
    "EmbeddingBackward0": lambda: F.embedding(torch.tensor([1, 0]), _leaf(3, 2), 1),
    "EmbeddingBagBackward0": _bag,
    "ExpBackward0": lambda: _leaf(2).exp(),
    "ExpandBackward0": lambda: _leaf(2, 1).expand(2, 3),
    "GeluBackward0": lambda: F.gelu(_leaf(2), approximate="tanh"),
    "HardsigmoidBackward0": lambda: F.hardsigmoid(_leaf(2)),
    "HardswishBackward0": lambda: F.hardswish(_leaf(2)),
    "HardtanhBackward0": lambda: F.hardtanh(_leaf(2)),
    "LeakyReluBackward0": lambda: F.leaky_relu(_leaf(2)),
    "LogBackward0": lambda: _leaf(2).log(),
    "LogSigmoidBackward0": lambda: F.logsigmoid(_leaf(2)),
    "MaxPool2DWithIndicesBackward0": lambda: F.max_pool2d(_leaf(1, 1, 4, 4), 2),
    "MishBackward0": lambda: F.mish(_leaf(2)),
    "MmBackward0": lambda: _leaf(2, 3) @ _leaf(3, 2),
    "MulBackward0": lambda: _leaf(2) * _leaf(2),
    "MulBackward1": lambda: torch.ops.aten.mul.Scalar(_leaf(2), 3),
    "NativeBatchNormBackward0": _batch_norm(training=False),
    "NativeDropoutBackward0": lambda: torch.native_dropout(_leaf(2), 0.5, True)[0],
    "NativeLayerNormBackward0": lambda: F.layer_norm(_leaf(2, 3), (3,), _leaf(3), _leaf(3)),
    "NegBackward0": lambda: -_leaf(2),
    "PermuteBackward0": lambda: _leaf(2, 3, 1).permute(2, 0, 1),
    "PowBackward0": lambda: _leaf(2) ** 3,
    "PreluKernelBackward0": lambda: F.prelu(_leaf(2, 1), _leaf(1)),
    "ReluBackward0": lambda: F.relu(_leaf(2)),
    "RsqrtBackward0": lambda: _leaf(2).rsqrt(),
    "SafeSoftmaxBackward0": lambda: torch.ops.aten._safe_softmax(_leaf(2, 3), 1),
    "SigmoidBackward0": lambda: _leaf(2).sigmoid(),
    "SiluBackward0": lambda: F.silu(_leaf(2)),
    "SoftmaxBackward0": lambda: _leaf(2, 3).softmax(1),
    "SoftplusBackward0": lambda: F.softplus(_leaf(2)),
    "SplitBackward0": lambda: torch.split(_leaf(4), 2)[0],
    "SqrtBackward0": lambda: _leaf(2).sqrt(),
    "StackBackward0": lambda: torch.stack([_leaf(2), _leaf(2)]),
    "TBackward0": lambda: _leaf(2, 3).t(),
    "TanhBackward0": lambda: _leaf(2).tanh(),
    "ThresholdBackward0": lambda: F.threshold(_leaf(2), 0.2, 0.3),
    "TransposeBackward0": lambda: _leaf(2, 3).transpose(0, 1),
    "UnbindBackward0": lambda: _leaf(2, 3).unbind(1)[0],
    "UnsafeSplitBackward0": lambda: torch.unsafe_split(_leaf(4), 2)[0],
    "UnsafeViewBackward0": lambda: torch.ops.aten._unsafe_view(_leaf(2, 3), [6]),
    "ViewBackward0": lambda: _leaf(2, 3).view(6),
}


class _Watched:
    """A node that notes which of its saved arguments are read."""

    def __init__(self, node):
        self._node, self.read = node, set()

    def __getattr__(self, name):
        if name.startswith("_saved_"):
            self.read.add(name.removeprefix("_saved_"))
        return getattr(self._node, name)

    def __call__(self, *inputs):
        self.read |= _saved(self._node)  # its own backward reads them all
        return self._node(*inputs)


def _saved(node):
    return {a.removeprefix("_saved_") for a in dir(node) if a.startswith("_saved_")}


def _read(name, node):
    watched = _Watched(node)
    tangent = (RULES.get(name) or VIEW_RULES[name])(watched)
    sources = [source for source, _ in node.next_functions]
    tangent(
        tuple(
            None
            if source is None
            else torch.ones_like(source.variable)
            if hasattr(source, "variable")
            else torch.ones(source._input_metadata[0].shape)
            for source in sources
        )
    )
    return watched.read & _saved(node)


@pytest.mark.parametrize("name", [*RULES, *VIEW_RULES])
def test_each_saved_argument_is_read_or_ignored_for_a_reason(name):
    node = MAKE[name]().grad_fn
    assert node.name() == name
    assert _read(name, node) | set(IGNORED.get(name, {})) == _saved(node)


def test_batch_norm_in_train_mode_reads_all():
    node = _batch_norm(training=True)().grad_fn
    assert _read(node.name(), node) == _saved(node)


@pytest.mark.parametrize("train", [True, False, None])
def test_the_arguments_that_torch_does_not_show_are_heeded(train):
    """Native dropout saves ``train``, but has no attribute for it."""
    node = torch.native_dropout(_leaf(50), 0.5, train)[0].grad_fn
    tangent = RULES[node.name()](node)
    assert torch.equal(tangent((torch.ones(50),)), node(torch.ones(50)))
