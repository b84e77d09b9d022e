"""Build the ONNX graphs of the face detector's three networks (Zhang et al. 2016) from their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

Network: TypeAlias = Literal["pnet", "rnet", "onet"]

_OPSET: Final = 17
_IR_VERSION: Final = 9
"""As in `onnx_builder`."""


class _Pool(NamedTuple):
    side: int
    padding: Literal["SAME_UPPER", "VALID"]


class _Shape(NamedTuple):
    side: int | str
    """Pixels of its square input; P-Net has no dense layer and takes any rectangle."""
    pools: tuple[_Pool | None, ...]
    """What follows each convolution, with a stride of 2."""
    heads: tuple[str, ...]
    """Its outputs in the order of the weights; the points of a face (eyes, nose, mouth) are not used."""


_SHAPES: Final[dict[Network, _Shape]] = {
    "pnet": _Shape("any", (_Pool(2, "SAME_UPPER"), None, None), ("boxes", "faces")),
    "rnet": _Shape(24, (_Pool(3, "SAME_UPPER"), _Pool(3, "VALID"), None), ("boxes", "faces")),
    "onet": _Shape(
        48,
        (_Pool(3, "SAME_UPPER"), _Pool(3, "VALID"), _Pool(2, "SAME_UPPER"), None),
        ("boxes", "points", "faces"),
    ),
}


class _Graph:
    """Collect nodes and weights of the graph; `value` is the name of the last output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.value = "images"

    def constant(self, array: NDArray[Any]) -> str:
        name = f"weight_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator: str, *weights: NDArray[Any], **attributes: Any) -> None:
        """Append an operator to the last output and make its output the last."""
        output = f"{operator}_{len(self.nodes)}"
        inputs = [self.value, *map(self.constant, weights)]
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        self.value = output

    def layer(self, kernel: NDArray[Any], bias: NDArray[Any]) -> None:
        """Append a convolution (height, width, input, output, in TensorFlow's order) or a dense layer."""
        if kernel.ndim == 4:
            self.node("Conv", kernel.transpose(3, 2, 0, 1), bias, kernel_shape=list(kernel.shape[:2]))
        else:
            self.node("Gemm", kernel, bias)


def build(network: Network, weights: Sequence[NDArray[Any]]) -> bytes:
    """Return the ONNX model: ``images`` float32 [n, 3, h, w] → ``boxes`` [n, 4 …], ``faces`` [n, 2 …].

    `weights` are kernel, bias and slope of each layer in turn, then kernel and bias of each output.
    """
    shape = _SHAPES[network]
    graph = _Graph()
    following: Iterator[NDArray[Any]] = iter(weights)
    for pool in shape.pools:
        graph.layer(next(following), next(following))
        graph.node("PRelu", next(following).reshape(-1, 1, 1))
        if pool is not None:
            graph.node("MaxPool", kernel_shape=[pool.side] * 2, strides=[2, 2], auto_pad=pool.padding)
    if shape.side != "any":
        # the published weights count columns before rows, and channels last
        graph.node("Transpose", perm=[0, 3, 2, 1])
        graph.node("Flatten")
        graph.layer(next(following), next(following))
        graph.node("PRelu", next(following))
    body = graph.value
    for head in shape.heads:
        graph.value = body
        kernel, bias = next(following), next(following)
        if head == "points":
            continue
        graph.layer(kernel, bias)
        if head == "faces":
            graph.node("Softmax", axis=1)
        graph.nodes.append(helper.make_node("Identity", [graph.value], [head]))
    tail = [] if shape.side != "any" else ["rows", "columns"]
    sides = [shape.side] * 2 if shape.side != "any" else ["height", "width"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            network,
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, *sides])],
            [
                helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 4, *tail]),
                helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["n", 2, *tail]),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    serialized: bytes = model.SerializeToString()
    return serialized
