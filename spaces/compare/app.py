"""Base and aligned model side by side: clips made on demand, or a gallery where the models cannot run. See README.md."""

import os
import tempfile
from pathlib import Path


if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # before torch: it lends the GPU for the time of a decorated call

from lift_trl.hub.artifact_cards import comparison_card
from lift_trl.store.tables import prompt_rows
from lift_trl.ui.clips import ClipShelf
from lift_trl.ui.compare.generation import PairGenerator, Plan, component_sizes, critic_size, gpu_memory_gb, plan_for
from lift_trl.ui.compare.page import compare_page
from lift_trl.ui.compare.votes import Compare, Gallery
from lift_trl.ui.page import Settings, named, number_from_env, serve


def use_the_mini_world() -> None:
    """Models small enough for any machine: untrained, with a random LoRA."""
    from diffusers import DiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    from lift_trl.mini.world import build_world

    world = build_world(Path(tempfile.mkdtemp(prefix="lift_trl_")) / "world", num_rated=1, num_real=1, trained=False)
    pipe = DiffusionPipeline.from_pretrained(world.video_model)
    config = LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipe.transformer.add_adapter(config)
    lora = world.video_model.parent / "lora"
    pipe.save_lora_weights(lora, get_peft_model_state_dict(pipe.transformer))
    own = {"BASE": world.video_model, "ADAPTERS": f"random={lora}", "CRITIC": world.vlm, "PROMPTS": world.prompts}
    os.environ |= {"STEPS": "10"} | {name: str(value) for name, value in own.items()}


def generator(plan: Plan) -> PairGenerator:
    """The models, on their device. Imported here: a gallery starts without them."""
    from diffusers import DiffusionPipeline
    from torch import float32

    from lift_trl.critic.lift_critic import LiFTCritic
    from lift_trl.video_models import StoredPipeline

    zero_gpu = bool(os.environ.get("SPACES_ZERO_GPU"))
    model = (source := StoredPipeline(os.environ["BASE"])).adapter
    device, dtype = ("cpu", float32) if plan.how == "cpu" else ("cuda", model.dtype)
    pipe = DiffusionPipeline.from_pretrained(source.name, revision=source.files.revision, dtype=dtype)
    pipe.enable_model_cpu_offload() if plan.how == "offload" else pipe.to(device)
    critic = LiFTCritic.from_pretrained(os.environ["CRITIC"], device=device) if os.environ.get("CRITIC") else None
    arguments = model.sampling_arguments(*model.default_size, model.guidance_scale)
    arguments |= {"negative_prompt": model.negative_prompt} if model.negative_prompt else {}
    # On ZeroGPU a visitor has two minutes a day (signed in five): enough for both clips of a 2B model in 25 steps.
    arguments["num_inference_steps"] = number_from_env("STEPS", 25 if zero_gpu else 50)
    args = (pipe, named(os.environ["ADAPTERS"]), critic, arguments, model.fps, settings.clips_dir())
    rest = {"transformer_gb": sizes["transformer"], "base_revision": source.fingerprint("transformer", "vae")}
    return PairGenerator(*args, **rest, lend=spaces.GPU if zero_gpu else None)


settings = Settings.from_env("compare")
if not os.environ.get("BASE") and not os.environ.get("GALLERY"):
    use_the_mini_world()
plan, sizes = Plan("no", ""), {}
if os.environ.get("BASE"):
    sizes = component_sizes(os.environ["BASE"])
    critic_gb = critic_size(os.environ["CRITIC"]) if os.environ.get("CRITIC") else 0.0
    plan = plan_for(sizes, gpu_gb=gpu_memory_gb(), critic_gb=critic_gb)
sources, scores = (named(os.environ.get(name, "")) for name in ("GALLERY", "SCORES"))
shown = Gallery.load(sources, scores, token=settings.token) if sources else None
live = generator(plan) if plan.is_live else None
adapters = list(live.adapters) if live else shown.adapters if shown else []
log = settings.log(comparison_card(settings.repo_id or "", ", ".join(adapters)))
shelf = ClipShelf(identity := settings.identity())
prompts = [row["prompt"] for _, row in prompt_rows(Path(os.environ["PROMPTS"]))] if os.environ.get("PROMPTS") else ()
making = {"make": live.make, "seconds": live.seconds} if live else {}
demo = compare_page(Compare(adapters, log, identity), shelf, why=plan.why, gallery=shown, prompts=prompts, **making)

if __name__ == "__main__":
    serve(demo, shelf=shelf, on_exit=log.close)
