"""One optimisation step of CogVideoX-2B at its true depth and width, on a CPU.

The transformer has the released configuration and random weights, LoRA r = 128, float32; the clip is short and small
(9 frames of 64x64 pixels), since only its size is cut. Prints peak memory, seconds and the names of the targets, and
checks on the meta device that the targets match the 5B model too.
"""

import resource
import tempfile
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from peft import LoraConfig, get_peft_model

from lift_trl.alignment.draws import draw_rows
from lift_trl.alignment.objectives import per_sample_loss
from lift_trl.hub.lora import DIFFUSERS_LORA_FILE, export_diffusers_lora
from lift_trl.records import TextCondition
from lift_trl.video_models import CogVideoX


# The class's defaults are the 2B model; the 5B differs in these. Source: transformer/config.json of THUDM/CogVideoX-5b.
CONFIG_5B = {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}
LATENT_SHAPE = (3, 16, 8, 8)  # 9 frames of 64x64 pixels


def target_names(model: torch.nn.Module) -> set[str]:
    """Names of the adapted modules, block numbers left out."""
    return {
        name.split(".lora_A")[0].split(".", 4)[-1]
        for name, p in model.named_parameters()
        if "lora_A" in name and p.requires_grad
    }


def with_lora(
    config: dict[str, object], vae_config: dict[str, object], device: str
) -> tuple[CogVideoX, torch.nn.Module]:
    with torch.device(device):
        transformer = CogVideoXTransformer3DModel(**config)
        adapter = CogVideoX(transformer.config, vae_config)
        lora = LoraConfig(r=128, lora_alpha=128, target_modules=list(adapter.lora_target_modules))
        return adapter, get_peft_model(transformer.requires_grad_(False), lora)


def main() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        vae_config = dict(AutoencoderKLCogVideoX().config)
    adapter, model = with_lora({}, vae_config, "cpu")
    scheduler = CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, snr_shift_scale=3.0, timestep_spacing="trailing",
    )  # fmt: skip
    model.enable_gradient_checkpointing()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4)
    text = TextCondition(prompt_embeds=torch.randn(1, 226, 4096))

    start = time.perf_counter()
    draws = draw_rows(["row"], LATENT_SHAPE, key=(0, 0), num_timesteps=1000, caption_dropout=0.0)
    noisy = adapter.corrupt(scheduler, draws.posterior_noise, draws.noise, draws.timesteps)
    loss = per_sample_loss(adapter.predict(model, noisy, text), noisy.target).mean()
    loss.backward()
    optimizer.step()
    seconds = time.perf_counter() - start
    moved = sum(float(parameter.grad.abs().sum()) > 0 for parameter in trainable)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        export_diffusers_lora(folder, folder)
        lora_mb = (Path(folder) / DIFFUSERS_LORA_FILE).stat().st_size / 1e6

    _, model_5b = with_lora(CONFIG_5B, vae_config, "meta")
    print(f"parameters_b: {sum(p.numel() for p in model.parameters()) / 1e9:.3f}")
    print(f"lora_parameters_m: {sum(p.numel() for p in trainable) / 1e6:.1f}")
    print(f"lora_tensors_with_gradient: {moved} of {len(trainable)}")
    print(f"lora_file_mb: {lora_mb:.1f}")
    print(f"loss: {loss.item():.4f}")
    print(f"targets_2b: {' '.join(sorted(target_names(model)))}")
    print(f"targets_5b: {' '.join(sorted(target_names(model_5b)))}")
    print(f"seconds: {seconds:.1f}")
    print(f"peak_gb: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f}")


if __name__ == "__main__":
    main()
