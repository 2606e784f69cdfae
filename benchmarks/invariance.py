"""One network, many exporters: how often archgauge reads the same graph from all of them.

    python benchmarks/invariance.py [--set development|held_back] [--networks NAME ...] [--cache FOLDER] [--jobs 2]

Every network (timm, torchvision, pytorchcv, transformers; `pip install '.[names]' onnxsim`) is built with random
weights, no parameter zero or equal to another one, as after training, and exported as

    meta      by archgauge, without weights                           opset 18, 20
    dynamo    by torch's default exporter, batch norms kept / folded  opset 18, 20
    legacy    by torch's tracing exporter, batch norms kept / folded  opset 17, 20
    onnxsim   a simplifier's pass over one dynamo and one legacy file

and every file is read. Prints, for each network, how many pairs of its files have one hash, and what differs in the
others; then parameters and multiply-accumulates beside torch's own (`torch.utils.flop_counter`). Files that an exporter
refuses to write are left out, and listed. Exports are kept in the cache folder (without large weights, which the reader
never looks at), so a second run only reads. Exporting takes about half a minute a network on one core.

Networks of the set `held_back` were not looked at while the canonical form was worked out.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnx

from archgauge.encoders import torch_reader
from archgauge.encoders.difference import diff
from archgauge.encoders.draft import SMALL
from archgauge.encoders.errors import ArchGaugeError
from archgauge.encoders.files import make_folder, replacing
from archgauge.encoders.graph import ArchGraph
from archgauge.encoders.onnx_file import is_uniform
from archgauge.encoders.reading import read

REQUIRED = 0.90

DEVELOPMENT = {
    "torchvision": (
        "alexnet vgg11_bn resnet18 resnext50_32x4d densenet121 squeezenet1_0 mobilenet_v2 mobilenet_v3_small "
        "mnasnet0_5 shufflenet_v2_x0_5 googlenet inception_v3 efficientnet_b0 regnet_y_400mf convnext_tiny "
        "swin_t swin_v2_t vit_b_16 maxvit_t"
    ),
    "timm": (
        "resnet50 seresnet50 ecaresnet26t mobilenetv3_small_050 ghostnet_100 hrnet_w18_small dla34 ese_vovnet19b_dw "
        "repvgg_a0 convnext_atto convnextv2_atto convmixer_768_32 mixer_s16_224 resmlp_12_224 gmlp_ti16_224 "
        "vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 cait_xxs24_224 crossvit_tiny_240 pit_ti_224 levit_128s "
        "mobilevit_xxs mobilevitv2_050 efficientformer_l1 poolformer_s12 swin_tiny_patch4_window7_224 "
        "swinv2_cr_tiny_224 coat_lite_tiny coatnet_nano_rw_224 halonet26t lambda_resnet26t botnet26t_256 "
        "edgenext_xx_small fastvit_t8 twins_svt_small pvt_v2_b0 xcit_nano_12_p16_224 visformer_tiny eca_nfnet_l0 "
        "nest_tiny focalnet_tiny_srf davit_tiny mvitv2_tiny gcvit_xxtiny hiera_tiny_224 inception_v4 dpn68 skresnet18 "
        "res2net50_26w_4s cspresnet50 tf_efficientnet_b0 mambaout_femto beit_base_patch16_224 eva02_tiny_patch14_224 "
        "tnt_s_patch16_224"
    ),
    "pytorchcv": (
        "preresnet18 seresnet18 mobilenet_w1 shufflenet_g1_w1 menet108_8x1_g3 igcv3_w1 proxylessnas_cpu bninception "
        "xception cbam_resnet18 peleenet condensenet74_c4_g4 darknet53 airnet50_1x64d_r2 diracnet18v2 hardnet39ds "
        "scnet50 nasnet_4a1056"
    ),
    "transformers": "bert gpt2 distilbert llama",
}
HELD_BACK = {
    "torchvision": "resnet152 wide_resnet50_2 regnet_x_1_6gf efficientnet_v2_s",
    "timm": (
        "tiny_vit_5m_224 repghostnet_050 starnet_s1 rdnet_tiny efficientvit_b0 efficientvit_m0 convit_tiny volo_d1_224 "
        "regnetz_b16 tresnet_m selecsls42b xception41 gernet_s nextvit_small inception_next_tiny caformer_s18 "
        "vit_relpos_small_patch16_224 deit3_small_patch16_224 efficientformerv2_s0 maxvit_nano_rw_256 sebotnet33ts_256 "
        "vit_base_patch32_clip_224 hgnet_tiny"
    ),
    "pytorchcv": "bam_resnet18 ibn_resnet50 pyramidnet101_a360 spnasnet fbnet_cb wrn50_2 resnesta18",
    "transformers": "roberta t5 vit",
}
SETS = {
    name: [f"{library}:{model}" for library, models in chosen.items() for model in models.split()]
    for name, chosen in (("development", DEVELOPMENT), ("held_back", HELD_BACK))
}

Shapes = list[tuple[tuple[int, ...], str]]


def construct(name: str) -> tuple[Any, Shapes]:
    """The module, with weights on the CPU, and shape and type of its inputs."""
    library, _, model = name.partition(":")
    if library == "torchvision":
        import torchvision

        options: dict[str, Any] = {}
        if model in ("googlenet", "inception_v3"):
            options = {"init_weights": False, "aux_logits": False}
        side = 299 if model == "inception_v3" else 224
        return torchvision.models.get_model(model, weights=None, **options), [((1, 3, side, side), "float32")]
    if library == "timm":
        import timm

        module = timm.create_model(model)
        return module, [((1, *module.default_cfg["input_size"]), "float32")]
    if library == "pytorchcv":
        from pytorchcv.model_provider import get_model

        module = get_model(model)
        return module, [((1, 3, *module.in_size), "float32")]
    return _transformer(model)


def _transformer(model: str) -> tuple[Any, Shapes]:
    """A transformer of few layers that puts out one tensor."""
    import torch
    import transformers as hf

    made: dict[str, Callable[[], Any]] = {
        "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(num_hidden_layers=4)),
        "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(num_hidden_layers=4)),
        "distilbert": lambda: hf.DistilBertForSequenceClassification(hf.DistilBertConfig(n_layers=4)),
        "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(n_layer=4, use_cache=False)),
        "llama": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(
                hidden_size=256,
                intermediate_size=688,
                num_hidden_layers=4,
                num_attention_heads=8,
                num_key_value_heads=4,
                vocab_size=8000,
                use_cache=False,
            )
        ),
        "t5": lambda: hf.T5EncoderModel(hf.T5Config(num_layers=3)),
        "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(num_hidden_layers=4)),
    }
    inner = made[model]()

    class OneOutput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = self.model(x)
            result: torch.Tensor = found.logits if hasattr(found, "logits") else found.last_hidden_state
            return result

    shapes: Shapes = [((1, 3, 224, 224), "float32")] if model == "vit" else [((1, 128), "int64")]
    return OneOutput(), shapes


def as_trained(module: Any) -> None:
    """Moves every parameter and running statistic a little, so that none is zero or equal to another."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dtype.is_floating_point:
                parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.01 + 0.001)
        for part in module.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                part.running_mean.add_(torch.rand(part.running_mean.shape, generator=generator) * 0.1 + 0.01)
                part.running_var.mul_(torch.rand(part.running_var.shape, generator=generator) * 0.5 + 0.75)


def torch_macs(module: Any, shapes: Shapes, args: tuple[Any, ...]) -> float:
    """Half of what torch's own counter counts: on the meta device, else on the CPU with attention spelled out."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    try:
        meta = tuple(torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for shape, dtype in shapes)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            torch_reader._twin(module, "meta")(*meta)
    except Exception:  # the network looks at values
        spelled = copy.deepcopy(module).requires_grad_(False)
        for part in spelled.modules():
            if hasattr(getattr(part, "config", None), "_attn_implementation"):
                part.config._attn_implementation = "eager"
            if hasattr(part, "fused_attn"):
                part.fused_attn = False
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            spelled(*args)
    return counter.get_total_flops() / 2


def weightless(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the numbers of large tensors, except those that are one number everywhere."""
    result = onnx.ModelProto()
    result.CopyFrom(model)

    def empty(tensor: onnx.TensorProto) -> None:
        if prod(tensor.dims) > SMALL and not is_uniform(tensor.raw_data, 8):
            name, kind, dims = tensor.name, tensor.data_type, list(tensor.dims)
            tensor.Clear()
            tensor.name, tensor.data_type = name, kind
            tensor.dims.extend(dims)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights.bin")

    def walk(nodes: Any) -> None:
        for node in nodes:
            node.doc_string = ""
            del node.metadata_props[:]
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    empty(attribute.t)
                if attribute.HasField("g"):
                    graph(attribute.g)

    def graph(proto: onnx.GraphProto) -> None:
        for tensor in proto.initializer:
            empty(tensor)
        walk(proto.node)

    graph(result.graph)
    for function in result.functions:
        walk(function.node)
    return result


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing on the screen, not even from native code."""
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        yield
    finally:
        for stream, old in zip((1, 2), kept, strict=True):
            os.dup2(old, stream)
            os.close(old)
        os.close(nowhere)


def export(name: str, folder: Path) -> str:
    """Writes all files of one network, and `facts.json` when that is done; the name."""
    import torch

    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make_folder(folder)
    module, shapes = construct(name)
    module.eval()
    as_trained(module)
    args = tuple(
        torch.rand(shape) if dtype == "float32" else torch.randint(0, 99, shape, dtype=getattr(torch, dtype))
        for shape, dtype in shapes
    )
    failed: dict[str, str] = {}
    full: dict[str, onnx.ModelProto] = {}

    def attempt(variant: str, write: Callable[[], onnx.ModelProto]) -> None:
        try:
            with torch.no_grad():
                full[variant] = write()
            with replacing(folder / f"{variant}.onnx") as file:
                file.write(weightless(full[variant]).SerializeToString())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # exporters raise anything
            failed[variant] = f"{type(error).__name__}: {error}".splitlines()[0][:160]

    def dynamo(opset: int, fold: bool) -> onnx.ModelProto:
        if not programs:
            programs.append(torch.export.export(module, args, strict=False))
        exported: Any = torch.onnx.export(
            programs[0], (), dynamo=True, optimize=fold, opset_version=opset, verbose=False
        )
        model: onnx.ModelProto = exported.model_proto
        return model

    def legacy(opset: int, fold: bool) -> onnx.ModelProto:
        mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
        stream = io.BytesIO()
        torch.onnx.export(module, args, stream, dynamo=False, opset_version=opset, training=mode)
        return onnx.load_from_string(stream.getvalue())

    def simplified(variant: str) -> onnx.ModelProto:
        import onnxsim

        given = onnx.ModelProto()
        given.CopyFrom(full[variant])
        model: onnx.ModelProto = onnxsim.simplify(given)[0]
        return model

    programs: list[Any] = []
    dtypes = [dtype for _, dtype in shapes]
    with silent():
        for opset in (18, 20):
            attempt(
                f"meta{opset}",
                lambda opset=opset: torch_reader.export(module, [s for s, _ in shapes], dtypes=dtypes, opset=opset),
            )
        for opset in (18, 20):
            for kind, fold in (("kept", False), ("folded", True)):
                attempt(f"dynamo{opset}{kind}", lambda opset=opset, fold=fold: dynamo(opset, fold))
        for opset in (17, 20):
            for kind, fold in (("kept", False), ("folded", True)):
                attempt(f"legacy{opset}{kind}", lambda opset=opset, fold=fold: legacy(opset, fold))
        for variant in ("dynamo20folded", "legacy17kept"):
            if variant in full:
                attempt(f"onnxsim_{variant}", lambda variant=variant: simplified(variant))
        macs = torch_macs(module, shapes, args)
    facts = {"params": sum(p.numel() for p in module.parameters()), "macs": macs, "failed": failed}
    with replacing(folder / "facts.json") as file:
        file.write(json.dumps(facts).encode())
    return name


def files(name: str, folder: Path) -> dict[str, ArchGraph | str]:
    """What was read of every file of one network; the error where that failed."""
    found: dict[str, ArchGraph | str] = {}
    for path in sorted(folder.glob("*.onnx")):
        try:
            found[path.stem] = read(path)
        except ArchGaugeError as error:
            found[path.stem] = str(error)
    return found


def main() -> int:
    """Exports what is not in the cache, reads everything, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=sorted(SETS), default="development")
    parser.add_argument("--networks", nargs="*", help="only these, e.g. timm:resnet50 transformers:bert")
    parser.add_argument("--cache", type=Path, default=Path("runs/invariance"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    names: list[str] = options.networks or SETS[options.set]
    folders = {name: options.cache / name.replace(":", "__") for name in names}
    missing = [name for name in names if not (folders[name] / "facts.json").exists()]
    if missing:
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(export, name, folders[name]) for name in missing]
            for number, job in enumerate(jobs, 1):
                print(f"exported {number}/{len(missing)} {job.result()}", file=sys.stderr)

    same = pairs = equal_params = equal_macs = 0
    unlike: list[str] = []
    costs: list[str] = []
    refusals: list[str] = []
    for name in names:
        facts = json.loads((folders[name] / "facts.json").read_text())
        found = files(name, folders[name])
        groups: dict[str, list[str]] = defaultdict(list)
        for variant, graph in found.items():
            groups[graph.hash if isinstance(graph, ArchGraph) else f"error: {graph}"].append(variant)
        count = len(found) * (len(found) - 1) // 2
        alike = sum(len(g) * (len(g) - 1) // 2 for key, g in groups.items() if not key.startswith("error"))
        same, pairs = same + alike, pairs + count
        ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
        if len(ordered) > 1:
            unlike.append(f"{name}: {alike} of {count} pairs")
            first = found[ordered[0][1][0]]
            for key, variants in ordered[1:]:
                graph = found[variants[0]]
                why = key
                if isinstance(first, ArchGraph) and isinstance(graph, ArchGraph):
                    lines = [line.strip() for line in diff(first, graph).text(limit=2).splitlines()]
                    start = next((i for i, line in enumerate(lines) if line.startswith("changes")), 0)
                    why = "; ".join(lines[start + 1 : start + 3])
                unlike.append(f"    {' '.join(variants)}: {why}")
        for variant, reason in facts["failed"].items():
            refusals.append(f"{name} {variant}: {reason}")
        own = next((g for v, g in found.items() if v.startswith("meta") and isinstance(g, ArchGraph)), None)
        if own is not None:
            equal_params += own.params == facts["params"]
            close = abs(own.macs - facts["macs"]) <= 1e-3 * facts["macs"]
            equal_macs += close
            if own.params != facts["params"] or not close:
                costs.append(
                    f"{name}: parameters {own.params:,} (torch {facts['params']:,}), "
                    f"MACs {own.macs:,} (torch {facts['macs']:,.0f})"
                )
    print(f"networks: {len(names)}   pairs of files: {pairs}   with one hash: {same} = {same / max(1, pairs):.2%}")
    for line in unlike:
        print(f"  {line}")
    print(
        f"\nparameters equal torch's: {equal_params} of {len(names)}; MACs within 0.1 %: {equal_macs} of {len(names)}"
    )
    for line in costs:
        print(f"  {line}")
    print(f"\nfiles that the exporters did not write: {len(refusals)}")
    for line in refusals:
        print(f"  {line}")
    return int(same < REQUIRED * pairs)


if __name__ == "__main__":
    sys.exit(main())
