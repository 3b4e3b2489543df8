"""Keras configurations, judged as data: a model may be put together from Keras' own parts and from nothing else.

A configuration is JSON in which every object says ``class_name`` and ``config``, and mostly ``module``: in config.json
of a .keras archive, in the attributes of an HDF5 file, in a SavedModel's keras_metadata.pb. Loading it makes instances
of what it names, so what it may name is an allow-list: the layers, initializers, losses and so on that Keras exports
(names as of Keras 3.15, and the ones that earlier versions had). A custom class holds the file; a callable of any
other module, code in the file, and a path that a layer would read block it.

Facts: `class_name`, `layers` (the count of the outermost model's).
"""

from __future__ import annotations

import builtins
import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from freehold.scan.base import ASK, BLOCK, FETCH_AGAIN, HOLD, Malformed, Report, Rule

MAX_JSON = 8 << 20
MAX_PLACES = 2_000_000

_SAFE = "Ask the publisher for a model without it; do not load this one, whatever the safe mode."
CODE = Rule(
    "keras.code", BLOCK, "The configuration holds Python code, which loading it would run.", ASK,
    "Keras, Lambda and safe_mode; CVE-2025-9906",
)  # fmt: skip
NAMED = Rule(
    "keras.lambda", HOLD, "A Lambda layer calls a function that the configuration names.",
    "Read what the function does; decide by name and reason.", "Keras, Lambda",
)  # fmt: skip
CALLABLE = Rule(
    "keras.callable", BLOCK, "The configuration names something to be called that is no part of a model.", _SAFE,
    "CVE-2025-1550, CVE-2025-8747",
)  # fmt: skip
FOREIGN = Rule(
    "keras.foreign", BLOCK, "A layer loads a model of another format, with whatever code that holds.", ASK,
    "Keras, TFSMLayer and TorchModuleWrapper; CVE-2025-49655",
)  # fmt: skip
PATH = Rule(
    "keras.path", BLOCK, "A layer would read a file that the configuration names.",
    "Ask the publisher for a model with the vocabulary inside.", "CVE-2025-12058",
)  # fmt: skip
UNSAFE = Rule("keras.unsafe", BLOCK, "The configuration asks for the safe mode to be off.", _SAFE, "CVE-2025-9906")
CUSTOM = Rule(
    "keras.custom", HOLD, "The model needs a class of the publisher's own, whose code is not in the file.",
    "Read that class before it is installed beside the model; decide by name and reason.",
    "Keras, register_keras_serializable",
)  # fmt: skip
STRICT = Rule(
    "keras.json", BLOCK, "The configuration is not JSON that every reader reads alike.", FETCH_AGAIN,
    "RFC 8259, section 4",
)  # fmt: skip
ARCHIVE = Rule(
    "keras.member", HOLD, "A Keras archive holds a file that Keras does not put there.",
    "Ask the publisher what it is; decide by name and reason.", "Keras, the .keras format",
)  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names that Keras exports: layers, models, initializers, regularizers, constraints, optimizers and their schedules,
# losses, metrics, types, quantizers. Those that call code or read files are judged apart, above all others.
CLASSES = _words("""
AUC AWQConfig AWQDTypePolicy AbsMaxQuantizer Accuracy Activation ActivityRegularization Adadelta Adafactor Adagrad Adam
AdamW Adamax AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D
AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average
AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D BatchNormalization Bidirectional
BinaryAccuracy BinaryCrossentropy BinaryFocalCrossentropy BinaryIoU CTC CategoricalAccuracy CategoricalCrossentropy
CategoricalFocalCrossentropy CategoricalGeneralizedCrossEntropy CategoricalHinge CategoryEncoding CenterCrop Circle
Concatenate ConcordanceCorrelation Constant Constraint ContrastLimitedAdaptiveHistogramEqualization Conv1D
Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D
Convolution1DTranspose Convolution2D Convolution2DTranspose Convolution3D Convolution3DTranspose CosineDecay
CosineDecayRestarts CosineSimilarity Cropping1D Cropping2D Cropping3D CutMix DTypePolicy DTypePolicyMap Dense
DepthwiseConv1D DepthwiseConv2D Dice Discretization DistillationLoss Distiller Dot Dropout ELU EinsumDense Embedding
Equalization ExponentialDecay F1Score FBetaScore FalseNegatives FalsePositives FeatureDistillation Flatten
Float8QuantizationConfig FloatDTypePolicy Ftrl GPTQConfig GPTQDTypePolicy GRU GRUCell GaussianDropout GaussianNoise
GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D
GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlorotNormal
GlorotUniform GroupNormalization GroupQueryAttention HashedCrossing Hashing HeNormal HeUniform Hinge Huber Identity
IdentityInitializer Initializer InputLayer InputSpec Int4DTypePolicy Int4QuantizationConfig Int8QuantizationConfig
IntegerLookup InverseTimeDecay IoU KLDivergence L1 L1L2 L2 LSTM LSTMCell Lamb Layer LayerNormalization LeakyReLU
LearningRateSchedule LecunNormal LecunUniform Lion LogCosh LogCoshError LogitsDistillation Loss LossScaleOptimizer
Masking MaxNorm MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D Maximum Mean
MeanAbsoluteError MeanAbsolutePercentageError MeanIoU MeanMetricWrapper MeanSquaredError MeanSquaredLogarithmicError
MelSpectrogram Metric MinMaxNorm Minimum MixUp Model MultiHeadAttention MultiOptimizer Multiply Muon Nadam NonNeg
Normalization OneHotIoU OneHotMeanIoU Ones Optimizer OptimizerMap Orthogonal OrthogonalInitializer OrthogonalRegularizer
PReLU PearsonCorrelation Permute PiecewiseConstantDecay Pipeline Poisson Policy PolynomialDecay Precision
PrecisionAtRecall QuantizationConfig QuantizedDTypePolicy QuantizedFloat8DTypePolicy Quantizer R2Score RMSNormalization
RMSprop RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomNormal
RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation
RandomUniform RandomZoom ReLU Recall RecallAtPrecision Regularizer RepeatVector Rescaling Reshape Resizing
ReversibleEmbedding RootMeanSquaredError SGD STFT STFTInitializer STFTSpectrogram ScheduleFreeAdamW SeedGenerator
SensitivityAtSpecificity SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D Sequential
SimpleRNN SimpleRNNCell Softmax Solarization SparseCategoricalAccuracy SparseCategoricalCrossentropy
SparseTopKCategoricalAccuracy SpatialDropout1D SpatialDropout2D SpatialDropout3D SpecificityAtSensitivity
SpectralNormalization SquaredHinge StackedRNNCells StringLookup Subtract Sum TextVectorization TimeDistributed
TopKCategoricalAccuracy TrueNegatives TruePositives TruncatedNormal Tversky UnitNorm UnitNormalization UpSampling1D
UpSampling2D UpSampling3D VarianceScaling Wrapper ZeroPadding1D ZeroPadding2D ZeroPadding3D Zeros constant
glorot_normal glorot_uniform he_normal he_uniform identity l1 l1_l2 l2 lecun_normal lecun_uniform max_norm min_max_norm
non_neg ones orthogonal orthogonal_regularizer random_normal random_uniform stft truncated_normal unit_norm
variance_scaling zeros
Functional MetricsList CompileMetrics CompileLoss LossesContainer MetricsContainer SumOverBatchSize
SumOverBatchSizeMetricWrapper LossFunctionWrapper Operation KerasTensor AddLoss AddMetric CuDNNLSTM CuDNNGRU
ThresholdedReLU LocallyConnected1D LocallyConnected2D SyncBatchNormalization RandomHeight RandomWidth
PeepholeLSTMCell AbstractRNNCell LossScaleOptimizerV3 NormalizeLayer TFLayer BaseImagePreprocessingLayer
""")
# Those of keras.ops, which a model holds as layers.
OPERATIONS = _words("""
Abs Absolute AdaptiveAveragePool AdaptiveMaxPool AffineTransform All AllClose Amax Amin Angle Any Append Arange Arccos
Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax Argmin Argpartition Argsort Array ArraySplit AssociativeScan
AveragePool BatchNorm Bincount BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift
BitwiseXor BroadcastTo CDist CTCDecode CTCLoss Cast Cbrt Ceil Celu Cholesky CholeskyInverse Clip Cond Conj Conjugate
Conv ConvTranspose ConvertToTensor Copy Corrcoef Correlate Cos Cosh CountNonzero CropImages Cross Cumprod Cumsum
Deg2rad DepthToSpace DepthwiseConv Det Diag Diagflat Diagonal Diff Digitize Divide DivideNoNan DotProductAttention
Dsplit Dstack Eig Eigh Einsum ElasticTransform Elu EmptyLike Equal Erf Erfc Erfinv Exp Exp2 ExpandDims Expm1
ExtractPatches ExtractSequences FFT FFT2 Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin Fmod Fold ForiLoop Full
FullLike Function GaussianBlur Gcd Gelu Geomspace GetItem Glu Greater GreaterEqual HSVToRGB HardShrink HardSigmoid
HardSilu HardTanh Heaviside Histogram Hsplit Hstack Hypot I0 IFFT2 IRFFT ISTFT Imag InTopK Inner Inv IsIn Isclose
Isfinite Isinf Isnan Isneginf Isposinf Isreal JVP Kron LayerNorm Lcm Ldexp LeakyRelu LeftShift Less LessEqual Linspace
Log Log10 Log1p Log2 LogSigmoid LogSoftmax Logaddexp Logaddexp2 Logdet LogicalAnd LogicalNot LogicalOr LogicalXor
Logspace Logsumexp Lstsq LuFactor Map MapCoordinates Matmul MatrixRank Max MaxPool Median Meshgrid Min Mod Moments
Moveaxis MultiHot NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean Nanmedian Nanmin Nanpercentile
Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter Nonzero Norm Normalize NotEqual OneHot OnesLike Outer
PSNR Pad PadImages Percentile PerspectiveTransform Pinv Polar Power Prod Ptp Qr Quantile RFFT RGBToGrayscale RGBToHSV
RMSNorm Rad2deg Ravel Real Rearrange Reciprocal Relu Relu6 Repeat Resize RightShift Roll Rot90 Round Rsqrt SSIM SVD
SaturateCast ScaleAndTranslate Scan Scatter ScatterUpdate SearchSorted SegmentMax SegmentMin SegmentProd
SegmentReduction SegmentSum Select Selu SeparableConv Sigmoid Sign Signbit Silu Sin Sinc Sinh Size Slice SliceUpdate
Slogdet SobelEdges SoftShrink Softplus Softsign Solve SolveTriangular Sort SpaceToDepth SparsePlus SparseSigmoid
Sparsemax Split Sqrt Square Squareplus Squeeze Stack Std StopGradient Swapaxes Switch Take TakeAlongAxis Tan Tanh
TanhShrink Tensordot Threshold Tile TopK Trace Transpose Trapezoid Tril Triu TrueDivide Trunc Unfold Unique
UnravelIndex Unstack Vander Var Vdot VectorizedMap View ViewAsComplex ViewAsReal Vsplit Vstack Where WhileLoop
ZerosLike
""")
_PLAIN = frozenset(name.lower() for name in OPERATIONS)  # and the functions that are called like them
FUNCTIONS = _words("""
binary_crossentropy binary_focal_crossentropy categorical_crossentropy categorical_focal_crossentropy
categorical_generalized_cross_entropy categorical_hinge circle cosine_similarity ctc dice hinge huber kl_divergence
log_cosh mean_absolute_error mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error poisson
sparse_categorical_crossentropy squared_hinge tversky binary_accuracy categorical_accuracy concordance_correlation
pearson_correlation sparse_categorical_accuracy sparse_top_k_categorical_accuracy top_k_categorical_accuracy accuracy
celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax
squareplus swish tanh tanh_shrink threshold mse mae mape msle kld MSE MAE MAPE MSLE KLD acc bce logcosh
constant glorot_normal glorot_uniform he_normal he_uniform identity l1 l1_l2 l2 lecun_normal lecun_uniform max_norm
min_max_norm non_neg ones orthogonal random_normal random_uniform truncated_normal unit_norm variance_scaling zeros
""")
_DATA = frozenset((
    "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__keras_tensor__", "__tuple__",
    "TensorShape", "TypeSpec", "CompositeTensor", "DType",
))  # fmt: skip
_FOREIGN = frozenset(("TFSMLayer", "TorchModuleWrapper"))
_CALLING = frozenset(("JaxLayer", "FlaxLayer", "ClassMethod", "InstanceMethod", "InstanceProperty", "DenseFeatures"))
_FLAGS = frozenset(("enable_unsafe_deserialization", "allow_unsafe_deserialization", "fn_serialization"))
_CODED = frozenset(("lambda", "raw"))  # function_type of a Lambda layer before Keras 3
_READ = frozenset(("vocabulary", "merges", "vocabulary_file", "vocab_file"))
_TF_OPS = re.compile(
    r"(tf\.)?(math|nn|linalg|signal|image|random|bitwise|sparse|sets|__operators__|compat\.v1\.shape)\."
)
_TF_CODE = re.compile(r"py_func|numpy_function|load_|io\.|raw_ops|ReadFile|WriteFile|PyFunc|saved_model|experimental")
_SPECS = frozenset(("TensorSpec", "RaggedTensorSpec", "SparseTensorSpec", "IndexedSlicesSpec", "BoundedTensorSpec"))
_CAMEL = re.compile(r"[A-Z][A-Za-z0-9]*")
_SNAKE = re.compile(r"[a-z][a-z0-9_]*")
_KERAS = re.compile(r"(tf_keras|keras|tensorflow\.keras|tensorflow\.python\.keras)(\.[a-z0-9_]+)*")
_OPS = re.compile(r"keras\.(src\.)?ops(\.[a-z0-9_]+)*")
_HUB = re.compile(r"(keras_hub|keras_nlp|keras_cv)\.(src\.)?(models|layers|tokenizers)(\.[a-z0-9_]+)*")
_INSTALLED = _words(
    "numpy scipy torch tensorflow jax jaxlib flax pip setuptools pkg_resources wheel joblib sklearn pandas dill h5py "
    "cloudpickle requests urllib3 yaml PIL matplotlib transformers huggingface_hub datasets fsspec absl google "
    "onnx onnxruntime IPython torchvision"
)
_MEMBERS = re.compile(r"(config|metadata|model\.weights)\.json|model(_\d{5})?\.weights\.(h5|npz)|assets/.*")


def is_config(document: Any) -> bool:
    """Is this JSON document the configuration of a Keras object, or one that holds such ones at its top?"""
    parts = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return _names(document) or any(map(_names, parts))


def _names(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("class_name"), str) and "config" in value


def look(names: Iterable[str], report: Report) -> bool:
    """Are these the members of a .keras archive? Then say which of them Keras does not put there."""
    members = set(names)
    if not {"config.json", "metadata.json"} <= members or not any(".weights." in name for name in members):
        return False
    for name in sorted(members):
        if not _MEMBERS.fullmatch(name) and not name.endswith("/"):
            report.add(ARCHIVE, name[:200], f"A Keras archive holds {name[:200]!r}, which Keras does not put there.")
    return True


def parse(text: str | bytes, at: int | str) -> Any:
    """A JSON document, read strictly. Raises Malformed where readers could differ, or where it is too deep."""
    if len(text) > MAX_JSON:
        raise Malformed(STRICT, at, f"A configuration of {len(text)} bytes is longer than any model's.")
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as fault:
        raise Malformed(STRICT, at, f"A Keras configuration is not strict JSON: {str(fault)[:200]}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def judge_config(document: Any, report: Report, at: int | str) -> None:
    """Walk a configuration and say what it names that it may not. ``at`` is where it stands, for the findings."""
    _facts(document, report)
    judge, left = _Judge(report), MAX_PLACES
    stack: list[tuple[Any, str]] = [(document, f"byte {at}" if isinstance(at, int) else at)]
    while stack:
        value, place = stack.pop()
        if isinstance(value, dict):
            judge.object(value, place)
            inner: Iterable[tuple[Any, Any]] = value.items()
        else:
            inner = enumerate(value)
        for key, part in inner:
            if isinstance(part, dict | list):
                stack.append((part, f"{place}/{str(key)[:60]}"[-400:]))
        left -= 1
        if left < 0:
            raise Malformed(STRICT, at, "The configuration has more parts than any model's.")


def _facts(document: Any, report: Report) -> None:
    if not isinstance(document, dict):
        return
    inner = document.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else inner
    report.facts.setdefault("class_name", str(document.get("class_name", ""))[:100])
    report.facts.setdefault("layers", len(layers) if isinstance(layers, list) else 0)


class _Judge:
    """One object of a configuration after another."""

    def __init__(self, report: Report):
        self.report = report

    def object(self, value: dict[str, Any], place: str) -> None:
        for flag in _FLAGS & value.keys():
            self.report.add(UNSAFE, place, f"The configuration has the key {flag!r}.")
        if value.get("safe_mode") is False:
            self.report.add(UNSAFE, place, "The configuration has 'safe_mode' off.")
        if str(value.get("function_type")) in _CODED:
            self.report.add(CODE, place, "A Lambda layer has its function in the file, as compiled Python.")
        for key in _READ & value.keys():
            if isinstance(value[key], str):
                self.report.add(PATH, place, f"The {key} would be read from {value[key][:100]!r}.")
        if "class_name" in value:
            self.named(value, place)

    def named(self, value: dict[str, Any], place: str) -> None:
        name, module, registered = value["class_name"], value.get("module"), value.get("registered_name")
        if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
            self.report.add(CALLABLE, place, "A class is named by something that is no text.")
        elif name == "__lambda__":
            self.report.add(CODE, place, "A Python lambda is in the file, as compiled code.")
        elif name in _DATA:
            return
        elif name == "__typespec__":
            self.spec(value, module or "", place)
        elif name == "function":
            self.function(value.get("config"), module or "builtins", registered or "", place)
        else:
            self.class_(name, module or "", registered or "", value.get("config"), place)

    def spec(self, value: dict[str, Any], module: str, place: str) -> None:
        spec = str(value.get("spec_name"))
        if spec not in _SPECS or not module.startswith(("tensorflow.python.", "keras.")):
            self.report.add(
                CALLABLE, place, f"A type is said to be {module}.{spec:.100}, which is none of TensorFlow's."
            )

    def function(self, name: Any, module: str, registered: str, place: str) -> None:
        if not isinstance(name, str):
            self.report.add(CALLABLE, place, "A function is named by something that is no text.")
        elif self.our_function(name, module):
            return
        elif module == "builtins" and not hasattr(builtins, name):
            self.report.add(CUSTOM, place, f"The model needs the function {name[:100]!r}, which Keras does not have.")
        else:
            self.other(name, module, registered, place)

    def our_function(self, name: str, module: str) -> bool:
        listed = (module == "builtins" or _KERAS.fullmatch(module)) and name in FUNCTIONS
        return listed or bool(_OPS.fullmatch(module) and _SNAKE.fullmatch(name) and name.replace("_", "") in _PLAIN)

    def class_(self, name: str, module: str, registered: str, config: Any, place: str) -> None:
        ours = not module or bool(_KERAS.fullmatch(module))
        if ours and name == "Lambda":
            self.lambda_(config, place)
        elif ours and name in _FOREIGN:
            self.report.add(FOREIGN, place, f"The layer {name} loads a model of another format, with its code.")
        elif ours and name in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"):
            self.operation(config, place)
        elif ours and name in _CALLING:
            self.report.add(CUSTOM, place, f"The layer {name} calls code that is not in the file.")
        elif self.our_class(name, module, ours) or self.of_hub(name, module, registered):
            if registered and registered.rpartition(">")[2] != name:
                meaning = f"The class {name} is also said to be {registered[:100]!r}, which readers take instead of it."
                self.report.add(CUSTOM, place, meaning)
        elif not module:
            self.report.add(CUSTOM, place, f"The model needs the class {name[:100]!r}, which Keras does not have.")
        else:
            self.other(name, module, registered, place)

    def our_class(self, name: str, module: str, ours: bool) -> bool:
        listed = ours and (name in CLASSES or name.removesuffix("V1").removesuffix("V2") in CLASSES | OPERATIONS)
        return listed or bool(_OPS.fullmatch(module) and name in OPERATIONS)

    def of_hub(self, name: str, module: str, registered: str) -> bool:
        """A class of KerasHub or one of its forerunners, by the name that they register it under."""
        known = _HUB.fullmatch(module) and _CAMEL.fullmatch(name)
        return bool(known) and registered == f"{module.partition('.')[0]}>{name}"

    def other(self, name: str, module: str, registered: str, place: str) -> None:
        """A name of another module: the publisher's own class, registered as Keras asks, or anything else."""
        package = module.partition(".")[0]
        shown = f"{module[:100]}.{name[:100]}"
        installed = package in _INSTALLED or (package in sys.stdlib_module_names and package != "__main__")
        keras = bool(_KERAS.fullmatch(module)) and _CAMEL.fullmatch(name) is not None
        if keras or (not installed and package != "keras" and ">" in registered):
            self.report.add(CUSTOM, place, f"The model needs {shown}, whose code is not known here.")
        else:
            self.report.add(CALLABLE, place, f"Loading the model would import and call {shown}.")

    def lambda_(self, config: Any, place: str) -> None:
        function = config.get("function") if isinstance(config, dict) else None
        if isinstance(function, str | dict):
            self.report.add(NAMED, place)  # code in it is found where it stands
        else:
            self.report.add(CODE, place, "A Lambda layer has its function in the file, as compiled Python.")

    def operation(self, config: Any, place: str) -> None:
        """A TensorFlow function or node made a layer, by name."""
        config = config if isinstance(config, dict) else {}
        asked = str(config.get("function") or config.get("node_def") or "")
        if _TF_CODE.search(asked):
            self.report.add(
                CALLABLE, place, f"A layer calls {asked[:100]!r} of TensorFlow, which reaches files or code."
            )
        elif asked and not _TF_OPS.match(asked) and not _SNAKE.fullmatch(asked.removeprefix("tf.")):
            self.report.add(CUSTOM, place, f"A layer calls {asked[:100]!r} of TensorFlow.")
