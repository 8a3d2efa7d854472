"""Runs inside VBench's own environment (any Python from 3.8, no lift_trl): one dimension, or a look at what is there.

Started by vbench_run.py as `python -I vbench_worker.py ...`: isolated mode, so that neither this folder nor PYTHONPATH
leaks into VBench's imports.
"""

import argparse
import importlib
import importlib.util
import json
import os
import sys
from typing import Any, Dict  # noqa: UP035  (Python 3.8)


def probe() -> Dict[str, Any]:  # noqa: UP006
    """Versions, device and importable extras of this environment, as VBench would see them."""
    metadata = importlib.import_module("importlib.metadata")
    found: Dict[str, Any] = {"python": sys.version.split()[0]}  # noqa: UP006
    for package in ("vbench", "torch", "torchvision", "transformers", "numpy", "decord"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # A git checkout is importable without being installed.
            found[package] = "checkout" if importlib.util.find_spec(package) else None
    found["detectron2"] = importlib.util.find_spec("detectron2") is not None
    found["cuda"] = found["gpu"] = None
    if found["torch"]:
        torch = importlib.import_module("torch")
        found["cuda"] = torch.version.cuda
        found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
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


def static_filter(args: argparse.Namespace) -> str:
    """Copies the first five static clips of each flickering prompt; returns their folder. VBench demands CUDA."""
    module = importlib.import_module("vbench.cli.static_filter")
    cache = importlib.import_module("vbench.utils").CACHE_DIR
    model = os.path.join(cache, "raft_model", "models", "raft-things.pth")
    options = {"model": model, "store_name": "filtered_static_video.json", "filter_scope": "temporal_flickering"}
    switches = {"small": False, "mixed_precision": False, "alternate_corr": False}
    paths = {"videos_path": args.videos, "result_path": args.output}
    module.static_filter(argparse.Namespace(**options, **switches, **paths))
    return os.path.join(args.output, "filtered_videos")


def evaluate(args: argparse.Namespace) -> None:
    """Writes `{output}/{dimension}_eval_results.json`."""
    if args.mode.startswith("long_"):
        long: Any = importlib.import_module("vbench2_beta_long")
        patch_torch_load()
        folder = os.path.dirname(long.__file__)
        configs = os.path.join(folder, "configs")
        long.VBenchLong(args.device, args.full_info, args.output).evaluate(
            videos_path=args.videos,
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
    videos = static_filter(args) if args.static_filter else args.videos
    vbench.VBench(args.device, args.full_info, args.output).evaluate(
        videos_path=videos,
        name=args.dimension,
        dimension_list=[args.dimension],
        local=True,
        mode=args.mode,
        imaging_quality_preprocessing_mode="longer",
    )


def main() -> None:
    """See the arguments of vbench_run.worker_command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkout")
    parser.add_argument("--probe", action="store_true")
    for name in ("videos", "full_info", "dimension", "output", "mode", "device"):
        parser.add_argument("--" + name)
    parser.add_argument("--static_filter", action="store_true")
    args = parser.parse_args()
    if args.checkout:
        sys.path.insert(0, args.checkout)
    if args.probe:
        sys.stdout.write(json.dumps(probe()) + "\n")
    else:
        evaluate(args)


if __name__ == "__main__":
    main()
