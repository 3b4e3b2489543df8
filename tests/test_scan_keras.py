"""Keras configurations: ordinary models pass whatever their layers are called; code, callables and paths do not."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.scan import keras
from freehold.scan.base import Malformed, Report


def found(document) -> set:
    report = Report("config.json", print, size=1)
    keras.judge_config(document, report, "config.json")
    return {(finding.rule, str(finding.severity)) for finding in report.findings}


def layer(kind, module="keras.layers", registered=None, /, **config) -> dict:
    return {"module": module, "class_name": kind, "config": config, "registered_name": registered}


def legacy(kind, /, **config) -> dict:
    return {"class_name": kind, "config": config}


def function(name: str, module="builtins", registered=None) -> dict:
    return {"module": module, "class_name": "function", "config": name, "registered_name": registered or name}


def model(*layers: dict, **more) -> dict:
    return {**layer("Sequential", "keras", name="sequential", layers=list(layers)), **more}


def test_an_ordinary_model_passes():
    """Many layers, one of them named lambda_1, an optimizer with a schedule, losses and metrics, a build shape."""
    glorot = layer("GlorotUniform", "keras.initializers", seed=None)
    policy = layer("DTypePolicy", "keras", name="float32")
    dense = [layer("Dense", name=f"lambda_{i}", units=4, kernel_initializer=glorot, dtype=policy) for i in range(300)]
    schedule = layer("CosineDecay", "keras.optimizers.schedules", initial_learning_rate=0.1)
    compiled = {
        "optimizer": layer("Adam", "keras.optimizers", learning_rate=schedule),
        "loss": function("mean_squared_error"), "metrics": ["accuracy", layer("AUC", "keras.metrics")],
    }  # fmt: skip
    whole = model(*dense, compile_config=compiled, build_config={"input_shape": [None, 8]})
    report = Report("config.json", print, size=1)
    keras.judge_config(whole, report, 0)
    assert not report.findings and report.facts == {"class_name": "Sequential", "layers": 300}


@pytest.mark.parametrize("part", [
    layer("Add", "keras.src.ops.numpy", "Add", name="add"), function("relu", "keras.activations"),
    function("sigmoid", "keras.ops"), legacy("Dense", units=3), legacy("Functional", layers=[]), legacy("TFOpLambda",
    function="math.add"), legacy("NotEqual"), legacy("BatchNormalizationV2"), legacy("glorot_uniform"),
    layer("Functional", "keras.src.models.functional", "Functional"),
    layer("StringLookup", vocabulary=["os.system", "b"]), layer("TextVectorization", vocabulary=None),
    legacy("__numpy__", value=[1], dtype="int32"), {"class_name": "TypeSpec", "items": []},
    {"class_name": "__typespec__", "spec_name": "TensorSpec", "module": "tensorflow.python.framework.tensor",
     "config": [[None], "float32", "x"], "registered_name": None},
    layer("GemmaBackbone", "keras_hub.src.models.gemma.gemma_backbone", "keras_hub>GemmaBackbone"),
])  # fmt: skip
def test_parts_that_models_are_made_of_pass(part):
    """Layers, operations, functions, data, names of earlier versions."""
    assert found(model(part)) == set()


CODE = legacy("__lambda__", code="4wAAAA==", defaults=None, closure=None)
ATTACKS = {
    "lambda of Keras 3": (layer("Lambda", function=CODE), "keras.code"),
    "lambda before it": (legacy("Lambda", function=["4wAAAA==", None, None], function_type="lambda"), "keras.code"),
    "lambda without module": (legacy("Lambda", function=CODE), "keras.code"),
    "lambda as an activation": (layer("Dense", activation=CODE), "keras.code"),
    "function of the system": (layer("system", "os", "system", command="echo"), "keras.callable"),
    "class of a package": (layer("Popen", "subprocess", "Popen", args=["echo"]), "keras.callable"),
    "installed package": (layer("load", "torch.hub", "load"), "keras.callable"),
    "said to be registered": (layer("system", "os", "my>system"), "keras.callable"),
    "builtin": (layer("Dense", activation=function("exec")), "keras.callable"),
    "builtin of a module": (layer("Dense", activation=function("system", "os")), "keras.callable"),
    "get_file": (layer("Dense", activation=function("get_file", "keras.utils")), "keras.callable"),
    "get_file as class": (layer("get_file", "keras.utils"), "keras.callable"),
    "inside of Keras": (layer("func_load", "keras.src.utils.python_utils"), "keras.callable"),
    "safe mode": (layer("enable_unsafe_deserialization", "keras.config"), "keras.callable"),
    "flag": ({**layer("Dense"), "enable_unsafe_deserialization": True}, "keras.unsafe"),
    "vocabulary": (layer("StringLookup", vocabulary="/etc/passwd"), "keras.path"),
    "another vocabulary": (legacy("TextVectorization", vocabulary="https://example.org/x"), "keras.path"),
    "saved model": (layer("TFSMLayer", filepath="/tmp/x"), "keras.foreign"),
    "torch module": (layer("TorchModuleWrapper", module="gASV"), "keras.foreign"),
    "file by TensorFlow": (legacy("TFOpLambda", function="io.read_file"), "keras.callable"),
    "python by TensorFlow": (legacy("TFOpLambda", function="numpy_function"), "keras.callable"),
    "type of elsewhere": ({**legacy("__typespec__"), "spec_name": "system", "module": "os"}, "keras.callable"),
    "no text": (layer(["x"]), "keras.callable"),
}  # fmt: skip
PLACES = {
    "layer": lambda part: model(part),
    "compile_config": lambda part: model(compile_config={"optimizer": part}),
    "build_config": lambda part: model(build_config={"x": [[part]]}),
    "keyword of a call": lambda part: model({**layer("Dense"), "inbound_nodes": [{"args": [], "kwargs": {"m": part}}]}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ATTACKS)
def test_code_callables_and_paths_block_wherever_they_stand(how, place):
    """Each trick, in each place that loading looks into."""
    part, rule = ATTACKS[how]
    assert (rule, "block") in found(PLACES[place](part))


@pytest.mark.parametrize("part", [
    layer("Mine", None, "my>Mine"), layer("Mine", "my_project.layers", "my>Mine"), legacy("my>Mine"), legacy("Mine"),
    layer("Dense", activation=function("my_act", "builtins", "my>my_act")), layer("NewLayer"), layer("JaxLayer"),
    layer("Dense", "keras.layers", "my>Other"), layer("Lambda", function=function("relu", "keras.activations")),
])  # fmt: skip
def test_the_publishers_own_classes_hold(part):
    """Their code is not in the file: somebody has to read it first."""
    assert {severity for _, severity in found(model(part))} == {"hold"}


@pytest.mark.parametrize(("text", "why"), [
    ('{"class_name": "Dense", "class_name": "Lambda", "config": {}}', "a key twice"), ("{", "cut off"),
    ("[" * 100_000, "too deep"), ('{"a": ' * 100_000, "too deep"), ("", "nothing"),
    ("9" * 5000, "a number of that length"),
])  # fmt: skip
def test_json_that_readers_read_differently_is_malformed(text, why):
    """Keys twice, cut off, too deep, too long."""
    with pytest.raises(Malformed) as fault:
        keras.parse(text, 0)
    assert fault.value.rule is keras.STRICT, why


def test_configurations_are_known_by_what_they_hold():
    """Not by their names; and other JSON is none."""
    assert keras.is_config(model()) and keras.is_config(legacy("Dense")) and keras.is_config({"model": model()})
    for other in ({"model_type": "llama"}, {"_class_name": "UNet"}, {"class_name": "x"}, [], "x", None, {"config": {}}):
        assert not keras.is_config(other)


def test_an_archive_holds_what_keras_puts_there():
    """Anything else in it holds; other zips are none of Keras'."""
    report = Report("m.keras", print, size=1)
    assert keras.look(["config.json", "metadata.json", "model.weights.h5", "assets/", "assets/v.txt"], report)
    assert not report.findings
    assert keras.look(["config.json", "metadata.json", "model.weights.h5", "run.py"], report)
    assert [finding.rule for finding in report.findings] == ["keras.member"]
    assert not keras.look(["data.pkl", "config.json"], report)


SOUND = json.dumps(model(layer("Dense", activation="relu", units=3), compile_config={"loss": function("mse")}))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SOUND)), st.text(max_size=5))
def test_damaged_text_is_read_or_malformed(at, put):
    """Never another error."""
    try:
        document = keras.parse(SOUND[:at] + put + SOUND[at + len(put) :], 0)
    except Malformed:
        return
    if isinstance(document, dict | list):
        found(document)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


_KEYS = ("class_name", "config", "module", "registered_name", "spec_name", "function_type", "vocabulary")


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(_KEYS, _VALUES)))
def test_any_object_is_judged(part):
    """Whatever stands where text is due."""
    before = copy.deepcopy(part)
    found(model(part))
    assert part == before
