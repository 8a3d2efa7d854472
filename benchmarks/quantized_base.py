"""How the loss moves when the frozen base under a LoRA is held in 8 bits: 40 steps of one run, thrice.

A CogVideoX of 20 M random parameters on random latents, on a CPU; `--tiny` has 2 M and 4 steps. Prints for each quantisation
`loss_ratio` (mean loss over all steps, over that of the base as it is), `worst_step` (largest relative difference of one
step) and `bytes_ratio` (of the base's parameters).
"""

import argparse
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig
from torchao.utils import TorchAOBaseTensor

from benchmarks.trainer_overhead import SIZE, write_cache
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from lift_trl.mini.checkpoints import build_tiny_pipeline, build_transformer
from lift_trl.store.quantization import Quantization


def build(folder: Path, *, num_layers: int, num_heads: int) -> Path:
    """A checkpoint whose transformer is so large."""
    pipe = build_tiny_pipeline(seed=0, size=SIZE.height)
    torch.manual_seed(0)
    pipe.transformer = build_transformer(
        num_layers=num_layers, num_heads=num_heads, head_dim=64, size=SIZE.height, num_frames=SIZE.num_frames
    )
    pipe.save_pretrained(folder)
    return folder


def num_bytes(weight: torch.Tensor) -> int:
    """What `weight` takes, with the scales of a quantised one."""
    if isinstance(weight, TorchAOBaseTensor):
        parts = [getattr(weight, name) for name in weight.tensor_data_names]
        return sum(part.numel() * part.element_size() for part in parts)
    return weight.numel() * weight.element_size()


def train(pipeline: Path, cache: Path, steps: int, quantization: Quantization | None) -> tuple[torch.Tensor, int]:
    """The losses of all steps, and the bytes of the frozen base."""
    with tempfile.TemporaryDirectory() as folder:
        args = RewardWeightedVideoConfig(
            folder, max_steps=steps, per_device_train_batch_size=4, report_to="none", save_strategy="no",
            logging_steps=1, disable_tqdm=True, learning_rate=1e-3, quantization=quantization,
        )  # fmt: skip
        trainer = RewardWeightedVideoTrainer(
            str(pipeline), args, train_dataset=CachedVideoDataset(cache), peft_config=LoraConfig(r=16, lora_alpha=16)
        )
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        frozen = sum(num_bytes(p) for p in trainer.model.parameters() if not p.requires_grad)
        return torch.tensor(losses), frozen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="A smaller model, few steps.")
    args = parser.parse_args()
    size, steps = ({"num_layers": 2, "num_heads": 4}, 4) if args.tiny else ({"num_layers": 6, "num_heads": 8}, 40)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = build(Path(folder) / "pipeline", **size)
        cache = write_cache(Path(folder) / "cache", pipeline, 100)
        plain, whole = train(pipeline, cache, steps, None)
        kinds: tuple[Quantization, ...] = ("int8", "float8")
        for quantization in kinds:
            losses, frozen = train(pipeline, cache, steps, quantization)
            ratio, worst = losses.mean() / plain.mean(), ((losses - plain) / plain).abs().max()
            print(
                f"{quantization} loss_ratio {ratio:.4f} worst_step {worst:.4f} bytes_ratio {frozen / whole:.2f} "
                f"(loss {plain[0]:.3f} to {plain[-1]:.3f} over {steps} steps)"
            )


if __name__ == "__main__":
    main()
