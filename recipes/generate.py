# /// script
# requires-python = ">=3.11"
# dependencies = ["lift-trl"]
# ///
"""Stage 3a: prompts to videos, from the base model or with a LoRA on top.

    accelerate launch --config_file recipes/configs/accelerate/multi_gpu.yaml recipes/generate.py \
        --config recipes/configs/cogvideox-2b/generate.yaml [--adapter runs/cogvideox-2b/lora_rwl]
"""

from dataclasses import dataclass, field
from typing import Literal

from lift_trl.importing import importing


with importing():
    from lift_trl.alignment.sampling.arguments import SamplerArguments
    from lift_trl.engines import EngineArguments
    from lift_trl.recipe_parser import RecipeParser
    from lift_trl.runtime import leaving_processes, process_state, setup_logging


@dataclass
class GenerateArguments(EngineArguments, SamplerArguments):
    model_name_or_path: str = field(metadata={"help": "Folder or repo[@revision] of the text-to-video pipeline."})
    prompts: str = field(metadata={"help": "Text file, one prompt a line; or rows with prompt and seed (eval plan)."})
    output_dir: str = field(metadata={"help": "Folder of the videos."})
    adapter: list[str] | None = field(
        default=None,
        metadata={
            "help": "Folder or repo[@revision] of a LoRA, one a network where there are two; the base alone without."
        },
    )
    videos_per_prompt: int = field(default=1, metadata={"help": "Videos of each prompt that comes without a seed."})
    seed: int = field(default=0, metadata={"help": "With prompt and index it makes a video's own seed."})
    num_frames: int | None = field(default=None, metadata={"help": "Frames; by default the checkpoint's own."})
    height: int | None = field(default=None, metadata={"help": "Pixels; by default the checkpoint's own."})
    width: int | None = field(default=None, metadata={"help": "Pixels; by default the checkpoint's own."})
    batch_size: int = field(default=1, metadata={"help": "Videos that are sampled together, in one process."})
    quantization: Literal["int8", "float8"] | None = field(
        default=None, metadata={"help": "Hold the denoising network in 8 bits, which saves memory (torchao)."}
    )
    compile_blocks: Literal["inductor", "aot_eager", "eager"] | None = field(
        default=None, metadata={"help": "Compile the network's blocks: inductor takes minutes at first, less a step."}
    )
    attention_kernel: Literal["cudnn", "flash", "efficient", "math"] | None = field(
        default=None, metadata={"help": "Kernel of the attention; as torch chooses by default."}
    )
    tf32: bool | None = field(default=None, metadata={"help": "Products of float32 in TF32, on GPUs that have it."})


ARGUMENTS = (GenerateArguments,)


def main(args: GenerateArguments) -> None:
    # After the parser: `--help` and a wrong option do not wait for the models' classes.
    with importing():
        from lift_trl.alignment.sampling.generate import generate_videos, read_prompts

    state = process_state()
    setup_logging(state)
    sampling = args.sampling(args, batch_size=args.batch_size)
    videos = read_prompts(args.prompts, videos_per_prompt=args.videos_per_prompt, seed=args.seed)
    generate_videos(
        args.model_name_or_path,
        videos,
        args.output_dir,
        sampling=sampling,
        adapter=args.adapter,
        state=state,
        workers=args.workers(state),
    )
    made = f"{len(videos)} videos are in {args.output_dir}. Next: recipes/score.py --videos {args.output_dir}"
    state.print(args.ending(made))


if __name__ == "__main__":
    with leaving_processes():
        main(*RecipeParser(ARGUMENTS).parse_args_and_config())
