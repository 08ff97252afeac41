"""Extraction, JPEG to disk: one image at a time through the processor's and the model's own code, against ours.

example:
  python -m tools.speed.extract              a small ViT on the CPU, or the full-size 6B where there is a GPU
  python -m tools.speed.extract --quick      small sizes, which say nothing of the large ones

Weights are random, drawn on the device in the sizes of the published model; the time does not depend on them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, Preprocessing, WeightsInfo
from backbones.internvit import InternViT
from backbones.internvit_network import InternViTNetwork
from benchmarks.data import pictures
from benchmarks.data.frames import frame_table
from benchmarks.data.windows import key_frames, windows
from benchmarks.features import encoding
from benchmarks.features.encoding import flops_of, measured_flops
from benchmarks.features.extract import ExtractOptions, extract, fingerprint_of
from benchmarks.features.store import FeatureStore
from tools.speed.harness import PAIRS, Disagree, Work, line, measure, reached, write_record

TINY: dict[str, Any] = dict(
    hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=224, patch_size=16,
    qkv_bias=True, qk_normalization=False, norm_type="layer_norm", hidden_act="gelu", layer_norm_eps=1e-6,
)  # fmt: skip
FULL: dict[str, Any] = dict(
    hidden_size=3200, num_hidden_layers=45, num_attention_heads=25, intermediate_size=12800, image_size=448,
    patch_size=14, qkv_bias=False, qk_normalization=True, norm_type="rms_norm", hidden_act="gelu", layer_norm_eps=1e-6,
)  # fmt: skip
CLIP = 130  # frames of a clip, ten strides


class RandomInternViT(InternViT):
    """An InternViT that nobody trained."""

    def __init__(self, config: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with device:
                network = InternViTNetwork(config)
                # Tokens and positions are drawn as published ones are spread; the layers start as torch draws them.
                torch.nn.init.normal_(network.embeddings.class_embedding, std=0.02)
                torch.nn.init.normal_(network.embeddings.position_embedding, std=0.02)
        finally:
            torch.set_default_dtype(before)
        Backbone.__init__(
            self,
            network,
            architecture={"name": "random InternViT", **config},
            feature="CLS token",
            feature_dim=config["hidden_size"],
            preprocessing=Preprocessing(size=config["image_size"], resize=config["image_size"]),
            weights_info=WeightsInfo("random", "made", "0" * 64, "Apache-2.0", random_init=True),
        )


def make_jpegs(root: Path, count: int) -> list[str]:
    """Write smooth noise of 224 x 224 pixels, as crops of faces are, in clips of 130."""
    random = np.random.default_rng(0)
    images = []
    for number in range(count):
        image = f"clip{number // CLIP:04d}/t0/face_{number % CLIP:05d}.jpg"
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 255, (28, 28, 3), dtype=np.uint8))
        coarse.resize((224, 224), Image.Resampling.BICUBIC).save(root / image, quality=90)
        images.append(image)
    return images


def plain_model(network: InternViTNetwork, config: Mapping[str, Any]) -> torch.nn.Module:
    """The network of transformers, with the same weights."""
    from transformers.models.internvl.configuration_internvl import InternVLVisionConfig
    from transformers.models.internvl.modeling_internvl import InternVLVisionModel

    names = dict(qkv_bias="attention_bias", qk_normalization="use_qk_norm")
    arguments: dict[str, Any] = {names.get(key, key): value for key, value in config.items()}
    # "mean pooling" switches the final norm off, which InternViT has not; its mean is not used
    arguments |= dict(use_mean_pooling=True, attn_implementation="sdpa")
    model_config = InternVLVisionConfig(**arguments)
    with torch.device("meta"):
        model = InternVLVisionModel(model_config)
    renames = {
        "embeddings.class_embedding": "embeddings.cls_token",
        "embeddings.patch_embedding.": "embeddings.patch_embeddings.projection.",
        "embeddings.position_embedding": "embeddings.position_embeddings",
        "encoder.layers.": "encoder.layer.",
        ".attn.proj.": ".attention.projection_layer.",
        ".attn.": ".attention.",
        ".norm1.": ".layernorm_before.",
        ".norm2.": ".layernorm_after.",
        ".ls1": ".lambda_1",
        ".ls2": ".lambda_2",
    }
    state = {}
    for name, tensor in network.state_dict().items():
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        if ".attention.qkv." in name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace(".qkv.", f".{part}_proj.")] = rows
        else:
            state[name] = tensor
    model.load_state_dict(state, assign=True)
    return model.eval()


@torch.inference_mode()
def plain_extract(model: torch.nn.Module, root: Path, images: Sequence[str], out: Path, side: int) -> None:
    """One image after the other: decode, resize by Pillow, normalise by numpy, encode, one file a frame."""
    weight = next(model.parameters())
    for image in images:
        with Image.open(root / image) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), np.float32)
        normalised = (pixels / 255 - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
        batch = torch.from_numpy(normalised.transpose(2, 0, 1).copy())[None].to(weight.device, weight.dtype)
        feature = model(pixel_values=batch).last_hidden_state[:, 0].cpu()
        target = (out / image).with_suffix(".pth")
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(feature[0].clone(), target)


def read_plain(out: Path, images: Sequence[str]) -> Tensor:
    """What `plain_extract` wrote."""
    return torch.stack([torch.load((out / image).with_suffix(".pth")) for image in images])


def far_apart(one: Tensor, other: Tensor, least: float) -> str | None:
    """What is wrong where features point in other directions than they should; `least` bounds the cosine's median."""
    cosine = torch.cosine_similarity(one.double(), other.double()).median().item()
    return None if cosine >= least else f"the median cosine is {cosine:.6f}, not {least}"


class Case:
    """A backbone, JPEGs, and fresh folders to write to."""

    def __init__(self, folder: Path, config: Mapping[str, Any], count: int, device: str, dtype: torch.dtype) -> None:
        self.folder = folder
        self.root = folder / "images"
        self.images = make_jpegs(self.root, count)
        self.device = torch.device(device)
        self.backbone = RandomInternViT(config, self.device, dtype)
        self.model = plain_model(self.backbone.network, config)
        self._runs = 0

    def plain(self) -> Tensor:
        """The plain way, over all images."""
        out = self._fresh()
        plain_extract(self.model, self.root, self.images, out, self.backbone.preprocessing.size)
        return read_plain(out, self.images)

    def ours(self, images: Sequence[str] | None = None, dtype: str | None = None, size: int | None = None) -> Tensor:
        """Our way, over some images or all."""
        images = self.images if images is None else images
        store = FeatureStore(self._fresh(), fingerprint_of(self.backbone, dtype))
        options = ExtractOptions(batch_size=size, device=str(self.device), dtype=dtype)
        extract(self.backbone, self.root, {"original": images}, store, options)
        return store.read("original", images)

    def _fresh(self) -> Path:
        self._runs += 1
        return self.folder / f"run{self._runs}"


@contextmanager
def on_cpu(quick: bool) -> Iterator[list[Work]]:
    """A ViT of vit_tiny's size: the same work, the plan at stride 13, and two processes, each of one thread.

    Two threads inside an operation wait for each other, and on a machine with other work for that too: what is timed
    then is the machine.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        case = Case(Path(name), TINY, 26 if quick else 520, "cpu", torch.float32)
        planned = touched_at_stride_13(case.images)
        pool = multiprocessing.get_context("spawn").Pool(2, _prepare)
        try:

            def shares(count: int) -> list[int]:
                folder = str(case._fresh())
                tasks = [(folder, str(case.root), case.images, number, count) for number in range(count)]
                return pool.starmap(_extract_share, tasks, chunksize=1)

            shares(2)  # both have started
            yield [
                Work(
                    name="extract_cpu",
                    what=f"{len(case.images)} JPEGs, decoded, encoded by a small ViT on one thread, and written",
                    against="transformers' model on one image at a time, one file per frame",
                    plain=case.plain,
                    ours=case.ours,
                    differ=lambda plain, ours: far_apart(plain, ours, 0.999999),
                    must=1.15,
                    aim=1.3,
                    facts=lambda: cpu_facts(case),
                ),
                Work(
                    name="extract_plan_cpu",
                    what=f"frames in windows of stride 13, of {len(case.images)} JPEGs",
                    against="the baseline on all of them",
                    plain=case.plain,
                    ours=lambda: case.ours(planned),
                    differ=lambda plain, ours: plan_differs(case.images, planned, plain, ours),
                    must=2.0,
                    aim=2.4,
                    facts=lambda: {"frames": len(case.images), "encoded": len(planned)},
                ),
                Work(
                    name="extract_two_cpu",
                    what=f"{len(case.images)} JPEGs by two processes of one thread",
                    against="one process of one thread",
                    plain=lambda: shares(1),
                    ours=lambda: shares(2),
                    differ=lambda plain, ours: None if sum(plain) == sum(ours) else f"{plain} and {ours} encoded",
                    must=1.8,
                    aim=1.9,
                ),
            ]
        finally:
            pool.close()
            pool.join()


def touched_at_stride_13(images: Sequence[str]) -> list[str]:
    """The images that some window of radius 3 touches whose key frames are 13 apart, all of them one long track."""
    table = frame_table(
        dict(
            clip="c", track="t0", frame=np.arange(len(images)) + 1, person="1", x1=0.0, y1=0.0, x2=9.0, y2=9.0, label=0,
            image=images, unique_id="",
        )
    )  # fmt: skip
    rows = np.unique(windows(table, 3, key_frames(table, 13)))
    return sorted(table["image"].to_numpy()[rows[rows >= 0]])


def plan_differs(images: Sequence[str], planned: Sequence[str], plain: Tensor, ours: Tensor) -> str | None:
    """What is wrong with a plan: its size (the ends of a short track apart), frames double, or what was encoded."""
    share = len(planned) / len(images)
    if len(set(planned)) != len(planned) or abs(share - 7 / 13) > max(0.01, 3 / len(images)):
        return f"{len(planned)} of {len(images)} frames are planned, {len(set(planned))} of them different"
    place = {image: row for row, image in enumerate(images)}
    return far_apart(plain[[place[image] for image in planned]], ours, 0.999999)


def cpu_facts(case: Case) -> dict[str, Any]:
    """What share of the core's matrix products the whole of our way reaches."""
    a = torch.randn(2048, 2048)
    gemm = max(2 * 2048**3 / seconds(lambda: a @ a) for _ in range(5))
    flops, count = flops_of(case.backbone), len(case.images)
    whole = seconds(case.ours)
    return {
        "gflop_an_image": round(flops / 1e9, 3),
        "images_a_second": round(count / whole, 1),
        "sgemm_gflops": round(gemm / 1e9, 1),
        "share_of_sgemm": round(flops * count / whole / gemm, 3),
    }


def _prepare() -> None:
    """In a worker process: one thread, and a backbone."""
    torch.set_num_threads(1)
    _worker["backbone"] = RandomInternViT(TINY, torch.device("cpu"), torch.float32)


def _extract_share(folder: str, root: str, images: list[str], number: int, count: int) -> int:
    """In a worker process: its share of an extraction; how many vectors it computed."""
    backbone = _worker["backbone"]
    store = FeatureStore(Path(folder), fingerprint_of(backbone))
    options = ExtractOptions(share=(number, count))
    return extract(backbone, Path(root), {"original": images}, store, options).encoded


_worker: dict[str, Backbone] = {}


@contextmanager
def host(quick: bool) -> Iterator[list[Work]]:
    """Decode and resize crops for InternViT-6B on one core: 224 pixels a side to 448."""
    from transformers import CLIPImageProcessor

    preprocessing = Preprocessing(size=448, resize=448)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 448}, crop_size={"height": 448, "width": 448}, do_rescale=False, do_normalize=False
    )
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        images = make_jpegs(root, 20 if quick else 400)

        def plain() -> np.ndarray:
            return np.stack([_processed(processor, root / image) for image in images])

        def ours() -> np.ndarray:
            return np.stack([pictures.read_crop(root, image, preprocessing=preprocessing) for image in images])

        def differ(plain: np.ndarray, ours: np.ndarray) -> str | None:
            most = int(np.abs(plain.astype(int) - ours).max())
            return f"pixels differ by {most}" if most > 1 else None

        torch.set_num_threads(1)
        try:
            yield [
                Work(
                    name="host",
                    what=f"{len(images)} JPEGs of 224 pixels a side decoded and resized to 448 on one core",
                    against="transformers' CLIP image processor, one image at a time",
                    plain=plain,
                    ours=ours,
                    differ=differ,
                    must=0.3,
                    facts=lambda: {"crops_a_second": round(len(images) / seconds(ours))},
                )
            ]
        finally:
            torch.set_num_threads(threads)


def _processed(processor: Any, path: Path) -> np.ndarray:
    """Uint8 (448, 448, 3) by transformers' processor."""
    pixels = np.asarray(processor(Image.open(path).convert("RGB"), return_tensors="np")["pixel_values"][0])
    return pixels.transpose(1, 2, 0).round().astype(np.uint8)


@contextmanager
def on_gpu(quick: bool) -> Iterator[list[Work]]:
    """The full-size 6B in bfloat16; `quick` takes three layers and a few images."""
    config = {**FULL, "num_hidden_layers": 3} if quick else FULL
    with tempfile.TemporaryDirectory() as name:
        case = Case(Path(name), config, 130 if quick else 3900, "cuda", torch.bfloat16)
        size = encoding.find_batch_size(case.backbone, case.device, None)
        exact = reference(case, 8)
        planned = touched_at_stride_13(case.images)

        def differ(plain: Tensor, ours: Tensor) -> str | None:
            return far_apart(exact, plain[: len(exact)], 0.999) or far_apart(exact, ours[: len(exact)], 0.999)

        yield [
            Work(
                name="extract_bf16",
                what=f"{len(case.images)} JPEGs, decoded, encoded by InternViT-6B in bfloat16, and written",
                against="transformers' model on one image at a time, prepared on the CPU, one file per frame",
                plain=case.plain,
                ours=lambda: case.ours(size=size),
                differ=differ,
                must=1.5,
                aim=1.8,
                facts=lambda: gpu_facts(case, size),
            ),
            Work(
                name="extract_plan",
                what=f"frames in windows of stride 13, of {len(case.images)} JPEGs",
                against="the baseline on all of them",
                plain=case.plain,
                ours=lambda: case.ours(planned, size=size),
                differ=lambda plain, ours: None if len(ours) == len(planned) else "frames are missing",
                aim=3.3,
                facts=lambda: {"frames": len(case.images), "encoded": len(planned)},
            ),
        ]


@torch.inference_mode()
def reference(case: Case, count: int) -> Tensor:
    """Features of the first images in float32, a layer at a time, so that memory holds no second network."""
    preprocessing = case.backbone.preprocessing
    crops = [pictures.read_crop(case.root, image, preprocessing=preprocessing) for image in case.images[:count]]
    pixels = torch.from_numpy(np.stack(crops)).to(case.device)
    network = case.backbone.network
    x = preprocessing.normalise(pixels)

    def in_float32(module: torch.nn.Module, call: Callable[[], Tensor]) -> Tensor:
        dtype = next(module.parameters()).dtype
        module.float()  # bfloat16 -> float32 -> bfloat16 loses nothing
        result = call()
        module.to(dtype)
        return result

    x = in_float32(network.embeddings, lambda: network.embeddings(x))
    for layer in network.layers:
        x = in_float32(layer, lambda: layer(x))  # noqa: B023 - called at once
    return x[:, 0].cpu()


def gpu_facts(case: Case, size: int) -> dict[str, Any]:
    """The device's limits, measured now, and how near the engine comes to them."""
    device = case.device
    tokens = size * ((FULL["image_size"] // FULL["patch_size"]) ** 2 + 1)
    shapes = {}
    for inputs, outputs in ((3200, 9600), (3200, 3200), (3200, 12800), (12800, 3200)):
        a = torch.randn(tokens, inputs, dtype=torch.bfloat16, device=device)
        b = torch.randn(inputs, outputs, dtype=torch.bfloat16, device=device)
        repeat = 10
        a @ b
        took = seconds(lambda: [a @ b for _ in range(repeat)], device)  # noqa: B023 - called at once
        shapes[f"{inputs}x{outputs}"] = round(2 * tokens * inputs * outputs * repeat / took / 1e12)
    source = torch.zeros(4 << 30, dtype=torch.uint8, device=device)
    source.clone()  # takes the memory, which the next one finds
    copy = 2 * len(source) / seconds(source.clone, device)
    peak, flops = measured_flops(device), flops_of(case.backbone)

    busy: list[tuple[Any, Any]] = []
    encode = encoding.Encoding.__call__

    def timed(self: encoding.Encoding, pixels: Tensor) -> Tensor:
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        result = encode(self, pixels)
        last.record()
        busy.append((first, last))
        return result

    encoding.Encoding.__call__ = timed  # type: ignore[method-assign]
    try:
        case.ours(size=size)
        torch.cuda.synchronize(device)
    finally:
        encoding.Encoding.__call__ = encode  # type: ignore[method-assign]
    # From the first batch that is not the compiler's to the last: what is between batches is idle.
    span = busy[1][0].elapsed_time(busy[-1][1]) / 1e3
    working = sum(first.elapsed_time(last) for first, last in busy[1:]) / 1e3
    rate = (len(busy) - 1) * size / span
    return {
        "device": torch.cuda.get_device_name(device),
        "batch_size": size,
        "tflop_an_image": round(flops / 1e12, 3),
        "images_a_second_steady": round(rate, 1),
        "tflops_8192": round(peak / 1e12),
        "tflops_of_the_models_shapes": shapes,
        "copy_tb_a_second": round(copy / 1e12, 2),
        "share_of_8192": round(flops * rate / peak, 3),
        "idle": round(1 - working / span, 4),
        "steady_seconds": round(span, 1),
    }


def seconds(work: Callable[[], Any], device: torch.device | None = None) -> float:
    """How long it takes; on a GPU until it is done there."""
    if device is not None:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device is not None:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main() -> int:
    """Measure on the GPU where there is one, else on the CPU; 1 where a figure was not reached or results differ."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.speed.extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, which say nothing of the large ones")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"timings of each way, default {PAIRS}")
    parser.add_argument("--only", metavar="NAME", help="one of the rows")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/speed/cpu or gpu/<name>.json")
    options = parser.parse_args()
    if options.record and options.quick:
        parser.error("--quick sizes are not for the record")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    failed = 0
    with (on_gpu if device == "cuda" else on_cpu)(options.quick) as works:
        for work in works:
            if options.only in (None, work.name):
                try:
                    record = measure(work, options.pairs, device)
                except Disagree as error:
                    print(error, file=sys.stderr)
                    failed += 1
                    continue
                print(line(record), record["facts"], flush=True)
                failed += not (options.quick or reached(record))
                if options.record:
                    print(write_record(record, "gpu" if device == "cuda" else "cpu"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
