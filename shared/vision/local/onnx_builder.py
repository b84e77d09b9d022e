"""Build the classifier's ONNX graph from its weights, with batch normalisation folded into convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CLASSES: Final = 1000

# EfficientNet-Lite0: stride of each inverted-residual block; kernels and widths are in the weights' shapes.
_STRIDES: Final = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
_EPSILON: Final = 1e-3
# Read by every onnxruntime of the last years; the onnx package would otherwise write its newest.
_OPSET: Final = 17
_IR_VERSION: Final = 9


class _Graph:
    """Collect nodes and weights of the graph; `value` is the name of the last output."""

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.value = "image"

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> None:
        """Append an operator to the last output (or between `inputs`) and make its output the last."""
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs or (self.value,), [output], **attributes))
        self.value = output

    def convolve(self, name: str, normalisation: str, *, stride: int = 1, activate: bool = True) -> None:
        """Append a convolution without bias, with its batch normalisation folded in, and ReLU6."""
        kernel = self.weights[f"{name}.weight"]
        norm = {
            part: self.weights[f"{normalisation}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        scale = norm["weight"] / np.sqrt(norm["running_var"] + _EPSILON)
        self.node(
            "Conv",
            self.value,
            self.constant(f"{name}.weight", (kernel * scale[:, None, None, None]).astype(np.float32)),
            self.constant(f"{name}.bias", (norm["bias"] - norm["running_mean"] * scale).astype(np.float32)),
            strides=[stride, stride],
            kernel_shape=list(kernel.shape[2:]),
            group=kernel.shape[0] if kernel.shape[1] == 1 else 1,
            # the weights come from TensorFlow, whose SAME padding puts the odd pixel at the end
            auto_pad="SAME_UPPER",
        )
        if activate:
            self.node("Clip", self.value, "zero", "six")


def build(weights: Mapping[str, NDArray[Any]], *, side: int) -> bytes:
    """Return the ONNX model: ``image`` float32 [1, 3, side, side] → ``probabilities`` float32 [1, 1000]."""
    graph = _Graph(weights)
    graph.constant("zero", np.array(0, np.float32))
    graph.constant("six", np.array(6, np.float32))
    graph.convolve("_conv_stem", "_bn0", stride=2)
    for index, stride in enumerate(_STRIDES):
        block = f"_blocks.{index}"
        entry = graph.value
        if f"{block}._expand_conv.weight" in weights:
            graph.convolve(f"{block}._expand_conv", f"{block}._bn0")
        graph.convolve(f"{block}._depthwise_conv", f"{block}._bn1", stride=stride)
        graph.convolve(f"{block}._project_conv", f"{block}._bn2", activate=False)
        first = weights.get(f"{block}._expand_conv.weight", weights[f"{block}._depthwise_conv.weight"])
        width = first.shape[1] if f"{block}._expand_conv.weight" in weights else first.shape[0]
        if stride == 1 and width == weights[f"{block}._project_conv.weight"].shape[0]:
            graph.node("Add", graph.value, entry)
    graph.convolve("_conv_head", "_bn1")
    graph.node("GlobalAveragePool")
    graph.node("Flatten")
    graph.node(
        "Gemm",
        graph.value,
        graph.constant("_fc.weight", weights["_fc.weight"]),
        graph.constant("_fc.bias", weights["_fc.bias"]),
        transB=1,
    )
    graph.nodes.append(helper.make_node("Softmax", [graph.value], ["probabilities"], axis=1))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet-lite0",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, CLASSES])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    serialized: bytes = model.SerializeToString()
    return serialized
