"""Runs inside VBench's own environment (any Python from 3.8, no lift_trl): one dimension, or a look at what is there.

Started by run.py as `python -I worker.py ...`: isolated mode, so that neither this folder nor PYTHONPATH
leaks into VBench's imports.
"""

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import sys
from typing import Any, Dict  # noqa: UP035  (Python 3.8)


def probe(torch: Any) -> Dict[str, Any]:  # noqa: UP006
    """Versions, device and importable extras of this environment, as VBench sees them; `torch` is the module or None."""
    metadata = importlib.import_module("importlib.metadata")
    found: Dict[str, Any] = {"python": sys.version.split()[0]}  # noqa: UP006
    of_long = ("scenedetect", "moviepy", "dreamsim")
    for package in ("vbench", "torch", "torchvision", "transformers", "numpy", "decord", *of_long):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # A git checkout is importable without being installed.
            found[package] = "checkout" if importlib.util.find_spec(package) else None
    found["detectron2"] = importlib.util.find_spec("detectron2") is not None
    found["cuda"] = found["gpu"] = None
    found["dinov2"] = False
    if torch:
        found["cuda"] = torch.version.cuda
        found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        found["dinov2"] = os.path.isdir(os.path.join(torch.hub.get_dir(), "facebookresearch_dinov2_main"))
    spec = importlib.util.find_spec("vbench")
    if spec and spec.submodule_search_locations:
        found["vbench_folder"] = list(spec.submodule_search_locations)[0]
    return found


def patch_torch_load() -> None:
    """VBench's checkpoints hold more than tensors, which torch 2.6 and later refuse by default (wheel 0.1.5)."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    original = torch.load

    def load(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("weights_only", False)
        return original(*args, **kwargs)

    torch.load = load


def sort_split_clips_last() -> None:
    """
    VBench-Long takes the ending of all clips from the first name that a folder lists, and puts its own folder split_clip
    among them (vbench2_beta_long/__init__.py, build_full_info_json, at commit 45e79ec).
    """
    module: Any = os
    original = os.listdir
    module.listdir = lambda *path: sorted(original(*path), key=lambda name: (name == "split_clip", name))


def link_clips(args: argparse.Namespace, folder: str) -> str:
    """
    Fills the new `folder` with links to the clips of this dimension: VBench-Long works within its folder, and trusts
    whatever it finds half-made there.
    """
    with open(args.full_info, encoding="utf-8") as file:
        prompts = {row["prompt_en"] for row in json.load(file) if args.dimension in row["dimension"]}
    os.makedirs(folder)
    for name in os.listdir(args.videos):
        if name.endswith(".mp4") and (args.mode == "custom_input" or name.rpartition("-")[0] in prompts):
            os.symlink(os.path.abspath(os.path.join(args.videos, name)), os.path.join(folder, name))
    return folder


def static_filter(videos: str, output: str) -> str:
    """Copies the first five static clips of each flickering prompt; returns their folder. VBench demands CUDA."""
    module: Any = importlib.import_module("vbench.cli.static_filter")
    utils: Any = importlib.import_module("vbench.utils")
    # The filter's RAFT is that of dynamic_degree, and only there does VBench fetch it.
    utils.init_submodules(["dynamic_degree"], local=True)
    model = os.path.join(utils.CACHE_DIR, "raft_model", "models", "raft-things.pth")
    options = {"model": model, "store_name": "filtered_static_video.json", "filter_scope": "temporal_flickering"}
    switches = {"small": False, "mixed_precision": False, "alternate_corr": False}
    module.static_filter(argparse.Namespace(videos_path=videos, result_path=output, **options, **switches))
    return os.path.join(output, "filtered_videos")


def measure(args: argparse.Namespace, videos: str, output: str) -> None:
    """Writes `{output}/{dimension}_eval_results.json`."""
    if args.mode.startswith("long_"):
        long: Any = importlib.import_module("vbench2_beta_long")
        patch_torch_load()
        sort_split_clips_last()
        folder = os.path.dirname(long.__file__)
        configs = os.path.join(folder, "configs")
        long.VBenchLong(args.device, args.full_info, output).evaluate(
            videos_path=videos,
            name=args.dimension,
            dimension_list=[args.dimension],
            local=True,
            mode=args.mode,
            use_semantic_splitting=False,
            clip_length_config="clip_length_mix.yaml",
            imaging_quality_preprocessing_mode="longer",
            dev_flag=True,
            static_filter_flag=args.static_filter,
            w_inclip=1.0,
            w_clip2clip=0.0,
            bg_clip2clip_feat_extractor="dreamsim",
            sb_clip2clip_feat_extractor="dinov2",
            num_of_samples_per_prompt=5,
            sb_mapping_file_path=os.path.join(configs, "subject_mapping_table.yaml"),
            bg_mapping_file_path=os.path.join(configs, "background_mapping_table.yaml"),
            slow_fast_eval_config=os.path.join(configs, "slow_fast_params.yaml"),
        )
        return
    vbench: Any = importlib.import_module("vbench")
    patch_torch_load()
    vbench.VBench(args.device, args.full_info, output).evaluate(
        videos_path=static_filter(videos, output) if args.static_filter else videos,
        name=args.dimension,
        dimension_list=[args.dimension],
        local=True,
        mode=args.mode,
        imaging_quality_preprocessing_mode="longer",
    )


def sha256(path: str) -> str:
    """The file's sha256 as hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def evaluate(args: argparse.Namespace) -> None:
    """
    Measures one dimension in `{output}/.work`, then moves its result to `output`: there it is whole or absent. Its stamp
    comes first: the key that it was asked for, versions, the weights that it read.
    """
    work = os.path.join(args.output, ".work", args.dimension)
    shutil.rmtree(work, ignore_errors=True)
    measure(args, link_clips(args, os.path.join(work, "videos")), work)
    files = {path: os.path.join(os.environ["VBENCH_CACHE_DIR"], path) for path in args.weights}
    weights = {path: sha256(file) for path, file in files.items() if os.path.isfile(file)}
    stamp, result = args.dimension + "_stamp.json", args.dimension + "_eval_results.json"
    with open(os.path.join(work, stamp), "w", encoding="utf-8") as file:
        json.dump(dict(probe(sys.modules.get("torch")), key=args.key, weights=weights), file, indent=1)
    for name in (stamp, result):
        os.replace(os.path.join(work, name), os.path.join(args.output, name))
    shutil.rmtree(work)


def main() -> None:
    """See the options in vbench_run.VBenchJob."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkout")
    parser.add_argument("--probe", action="store_true")
    for name in ("videos", "full_info", "dimension", "output", "mode", "device", "key"):
        parser.add_argument("--" + name)
    parser.add_argument("--static_filter", action="store_true")
    parser.add_argument("--weights", nargs="*", default=[])
    args = parser.parse_args()
    if args.checkout:
        sys.path.insert(0, args.checkout)
    if args.probe:
        torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
        sys.stdout.write(json.dumps(probe(torch)) + "\n")
    else:
        evaluate(args)


if __name__ == "__main__":
    main()
