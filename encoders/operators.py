"""The canonical operator vocabulary: every operator archgauge understands, and what kind of thing it is.

Operators carry their ONNX names (https://onnx.ai/onnx/operators/), with four of our own for what ONNX spells in
several ways: `Input`, `Linear` (a matrix product with a learned matrix), `Select` (a further output of an operator
that has several) and `Zero` (a signal that does not depend on any input). An operator of another domain is called
`domain::Name`.
"""

from enum import StrEnum

VOCABULARY_VERSION = 1


class Kind(StrEnum):
    """What an operator is for; statistics count and weigh by it."""

    INPUT = "input"
    CONV = "conv"
    LINEAR = "linear"
    MATMUL = "matmul"
    RECURRENT = "recurrent"
    EMBEDDING = "embedding"
    NORM = "norm"
    ACTIVATION = "activation"
    SOFTMAX = "softmax"
    POOL = "pool"
    GLOBAL_POOL = "global_pool"
    ADD = "add"
    MULTIPLY = "multiply"
    CONCAT = "concat"
    RESIZE = "resize"
    LAYOUT = "layout"
    REDUCE = "reduce"
    ELEMENTWISE = "elementwise"
    CONTROL = "control"
    OTHER = "other"
    UNKNOWN = "unknown"


_BY_KIND: dict[Kind, str] = {
    Kind.INPUT: "Input Zero",
    Kind.CONV: "Conv ConvTranspose DeformConv",
    Kind.LINEAR: "Linear",
    Kind.MATMUL: "MatMul Attention Einsum",
    Kind.RECURRENT: "LSTM GRU RNN",
    Kind.EMBEDDING: "Embedding",
    Kind.NORM: (
        "BatchNormalization LayerNormalization GroupNormalization InstanceNormalization RMSNormalization LRN "
        "LpNormalization MeanVarianceNormalization"
    ),
    Kind.ACTIVATION: (
        "Relu Relu6 LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Gelu Silu Mish HardSwish HardSigmoid Sigmoid Tanh "
        "Softplus Softsign Erf Shrink Clip Swish QuickGelu"
    ),
    Kind.SOFTMAX: "Softmax LogSoftmax Hardmax",
    Kind.POOL: "MaxPool AveragePool LpPool MaxRoiPool",
    Kind.GLOBAL_POOL: "GlobalAveragePool GlobalMaxPool GlobalLpPool",
    Kind.ADD: "Add Sub Sum Mean",
    Kind.MULTIPLY: "Mul Div",
    Kind.CONCAT: "Concat",
    Kind.RESIZE: "Resize Upsample DepthToSpace SpaceToDepth GridSample Pad MaxUnpool RoiAlign",
    Kind.LAYOUT: (
        "Reshape Transpose Slice Split Select Gather Expand Tile Squeeze Unsqueeze Flatten GatherElements GatherND "
        "ScatterElements ScatterND Scatter ReverseSequence Trilu CenterCropPad Col2Im"
    ),
    Kind.REDUCE: (
        "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum "
        "ReduceLogSumExp ArgMax ArgMin CumSum"
    ),
    Kind.ELEMENTWISE: (
        "Abs Acos Acosh And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike "
        "Ceil Cos Cosh Equal Erfc Exp Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log Max Min Mod Neg "
        "Not Or Pow Reciprocal Round Sign Sin Sinh Sqrt Tan Where Xor Identity Dropout"
    ),
    Kind.CONTROL: "If Loop Scan",
    Kind.OTHER: (
        "Shape Size NonZero TopK Unique OneHot Range EyeLike Constant ConstantOfShape NonMaxSuppression Compress Det "
        "QuantizeLinear DequantizeLinear DynamicQuantizeLinear RandomNormal RandomNormalLike RandomUniform "
        "RandomUniformLike Multinomial Bernoulli"
    ),
}

KINDS: dict[str, Kind] = {op: kind for kind, names in _BY_KIND.items() for op in names.split()}
"""Operator name → kind, for the operators archgauge understands."""


def kind_of(op: str) -> Kind:
    """The kind of a canonical operator; `Kind.UNKNOWN` if it is not in the vocabulary."""
    return KINDS.get(op, Kind.UNKNOWN)
