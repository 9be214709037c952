"""ONNX files become graphs with real layers; what lies elsewhere, or is no file, is refused."""

import pytest
import torch

from mlhf.core.errors import DataError
from mlhf.models.graph.errors import TraceError
from mlhf.models.graph.onnx_import import OnnxModule, from_onnx
from tests.engine.models.graph.networks import CASES

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def built():
    """A convolutional network, written with onnx alone."""
    from onnx import TensorProto, helper, numpy_helper

    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(1, 4, 3, 2, 1), torch.nn.BatchNorm2d(4)
    norm.running_mean.normal_()
    linear = torch.nn.Linear(64, 3)
    weights = {f"conv.{k}": v for k, v in conv.state_dict().items()}
    weights |= {f"bn.{k}": v for k, v in norm.state_dict().items() if v.ndim}
    weights |= {f"fc.{k}": v for k, v in linear.state_dict().items()}
    names = ("weight", "bias", "running_mean", "running_var")
    nodes = [
        helper.make_node(
            "Conv", ["x", "conv.weight", "conv.bias"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("BatchNormalization", ["a", *(f"bn.{n}" for n in names)], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["c", "shape"], ["d"]),
        helper.make_node("Gemm", ["d", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    tensors = [numpy_helper.from_array(v.numpy(), k) for k, v in weights.items()]
    tensors += [
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [0]),
        helper.make_tensor("rest", TensorProto.INT64, [1], [64]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors))
    return model, torch.nn.Sequential(conv, norm, torch.nn.ReLU(), torch.nn.Flatten(), linear)


def test_a_file_is_a_graph_of_real_layers_for_any_batch(built, tmp_path):
    model, module = built
    onnx.save_model(model, tmp_path / "net.onnx")
    rebuilt = from_onnx(tmp_path / "net.onnx").module().eval()
    x = torch.randn(7, 1, 8, 8)
    torch.testing.assert_close(rebuilt(x), module.eval()(x), rtol=1e-5, atol=1e-5)
    kinds = {name: type(layer).__name__ for name, layer in rebuilt.named_modules() if name}
    assert kinds == {"conv": "Conv2d", "bn": "BatchNorm2d", "fc": "Linear"}


def test_weights_elsewhere_and_control_flow_are_refused(built, tmp_path):
    from onnx import helper

    model, _ = built
    path = tmp_path / "apart.onnx"
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    onnx.save_model(copied, path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(DataError, match="another file"):
        from_onnx(path)
    (tmp_path / "no.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(DataError, match="no ONNX file"):
        from_onnx(tmp_path / "no.onnx")
    strange = onnx.ModelProto()
    strange.CopyFrom(model)
    strange.graph.node.append(helper.make_node("Evaluate", ["y"], ["z"], domain="mine"))
    onnx.save_model(strange, tmp_path / "strange.onnx")
    with pytest.raises(TraceError, match=r"mine\.Evaluate"):
        from_onnx(tmp_path / "strange.onnx")


def test_a_rebuilt_module_goes_through_torchs_own_export():
    import mlhf

    make, example = CASES["unet"]
    rebuilt = mlhf.trace(make(), example()).module().eval()
    exported = torch.export.export(rebuilt, (example(),)).module()
    x = example()
    torch.testing.assert_close(exported(x), rebuilt(x))


def test_values_that_nothing_gives_and_inputs_beyond_memory_are_refused(built, tmp_path):
    path, changed = tmp_path / "broken.onnx", onnx.ModelProto()
    changed.CopyFrom(built[0])
    changed.graph.node[2].input[0] = "nowhere"
    onnx.save_model(changed, path)
    with pytest.raises(DataError, match="Relu uses 'nowhere'"):
        from_onnx(path)
    changed.CopyFrom(built[0])
    changed.graph.output[0].name = "z"
    onnx.save_model(changed, path)
    with pytest.raises(DataError, match="'z' of the file is given by no node"):
        from_onnx(path)
    changed.CopyFrom(built[0])
    changed.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40
    onnx.save_model(changed, path)
    with pytest.raises(TraceError, match="of shape"):
        from_onnx(path)
    changed.CopyFrom(built[0])
    changed.graph.node[0].input[1] = ""
    onnx.save_model(changed, path)
    with pytest.raises(TraceError, match="in a form that is not read"):
        from_onnx(path)


def test_an_example_of_more_values_than_are_made_up_is_the_users(tmp_path):
    from onnx import TensorProto, helper

    def file(side):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, side])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, side])
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y], [])
        path = tmp_path / f"{side}.onnx"
        onnx.save_model(helper.make_model(graph), path)
        return path

    with pytest.raises(TraceError, match=r"an input \(x\) of shape \(4, 1048577\)") as refused:
        from_onnx(file(2**20 + 1))
    assert "from_onnx(path, example)" in refused.value.instead
    module = OnnxModule(onnx.load(file(2**20)))  # the largest that is made up
    assert {name: x.shape for name, x in module.example().items()} == {"x": (4, 4, 2**20)}
    network = from_onnx(file(2**21), torch.randn(2, 4, 8))
    assert torch.equal(network.module()(-torch.ones(3, 4, 8)), torch.zeros(3, 4, 8))
