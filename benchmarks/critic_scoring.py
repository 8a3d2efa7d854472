"""Scoring with a shared prefix against the authors' procedure, in CPU time on one thread and one tiny model.

    python benchmarks/critic_scoring.py

The authors' procedure (CodeGoat24/LiFT, LiFT-Critic/test): for each of the three questions, decode the clip, process its
frames and generate up to 64 tokens. Its decoding is that of their `vidcap.read()`: every frame up to the last sampled one,
decoded and converted. Ours: `LiFTCritic.score`. Clips are those of the folder `clips/` in
LIFT_TRL_REAL_DATA where that is set, else rendered ones of the same size. A random model does not stop by itself, so both
sides write exactly 64 tokens; with early stop, both stop at a full stop or the end of turn.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from lift_trl.critic.conversation import render_prompt
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.prefix import label_tokens
from lift_trl.critic_models.chat_vlm import PROCESSOR_OPTIONS
from lift_trl.mini.checkpoints import build_tiny_vlm
from lift_trl.rubric import LIFT, Dimension, Label
from lift_trl.store.video_io import sample_frames, write_video


NUM_CLIPS = 8
NUM_TOKENS = 64
REPEATS = 3
CAPTION = "a red circle moving left"


def find_clips(folder: Path) -> list[Path]:
    """Eight clips of 49 x 480 x 720: real ones where there are any, else rendered into `folder`."""
    real = os.environ.get("LIFT_TRL_REAL_DATA")
    if real:
        return sorted((Path(real) / "clips").glob("*.mp4"))[:NUM_CLIPS]
    rows, columns = np.mgrid[:480, :720]
    for number in range(NUM_CLIPS):
        ground = np.random.default_rng(number).integers(0, 40, (480, 720, 3), dtype=np.uint8)
        frames = np.stack([ground] * 49)
        for index, frame in enumerate(frames):
            frame[(rows - 240) ** 2 + (columns - 60 - 12 * index) ** 2 < 60**2] = (220, 40, 40)
        write_video(folder / f"{number}.mp4", frames, fps=8)
    return sorted(folder.glob("*.mp4"))


def read_as_authors(path: Path, num_frames: int) -> list[Image.Image]:
    """
    Uniform frames of a clip, each frame on the way decoded and converted.

    Source: CodeGoat24/LiFT, llava/mm_utils.py, get_frame_from_vcap (OpenCV there, PyAV here: both are FFmpeg).
    """
    images: list[Image.Image] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        wanted = np.linspace(0, stream.frames - 1, num_frames, dtype=int)
        for count, frame in enumerate(container.decode(stream)):
            pixels = frame.to_ndarray(format="bgr24")
            if count in wanted:
                images.append(Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])))
            if len(images) == num_frames:
                break
    return images


def authors_procedure(critic: LiFTCritic, clips: list[Path], *, end_ids: list[int]) -> torch.Tensor:
    """Three decodes and three `generate` calls a clip; log-probabilities of the first token [clips, 3, V]."""
    first = []
    for clip in clips:
        for dimension in Dimension:
            frames = read_as_authors(clip, critic.settings.num_frames)
            prompt = render_prompt(critic.adapter, critic.processor, frames, LIFT.question(dimension, CAPTION))
            inputs = critic.processor(text=[prompt], images=[frames], **PROCESSOR_OPTIONS)
            output = critic.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=NUM_TOKENS,
                min_new_tokens=None if end_ids else NUM_TOKENS,
                eos_token_id=end_ids or None,
                pad_token_id=critic.processor.tokenizer.pad_token_id,
                output_logits=True,
                return_dict_in_generate=True,
            )
            critic.processor.tokenizer.decode(output.sequences[0])
            first.append(output.logits[0][0].log_softmax(-1))
    return torch.stack(first).view(len(clips), len(Dimension), -1)


def cpu_seconds(work: Callable[[], object]) -> float:
    """The least CPU time of several runs."""
    times = []
    for _ in range(REPEATS):
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return min(times)


def main() -> None:
    torch.set_num_threads(1)
    model, processor = build_tiny_vlm(seed=0)
    critic = LiFTCritic(model, processor, name="tiny", max_reason_tokens=NUM_TOKENS)
    stops = [*critic.end_ids, processor.tokenizer(".", add_special_tokens=False)["input_ids"][-1]]
    with tempfile.TemporaryDirectory() as folder:
        clips = find_clips(Path(folder))
        captions = [CAPTION] * len(clips)
        critic.end_ids = frozenset()
        authors = cpu_seconds(lambda: authors_procedure(critic, clips, end_ids=[]))
        ours = cpu_seconds(lambda: critic.score(clips, captions))
        ours_with_reason = cpu_seconds(lambda: critic.score(clips, captions, with_reason=True))
        critic.end_ids = frozenset(stops)
        authors_stop = cpu_seconds(lambda: authors_procedure(critic, clips, end_ids=stops))
        ours_stop = cpu_seconds(lambda: critic.score(clips, captions, with_reason=True))

        naive = authors_procedure(critic, clips, end_ids=stops)
        decoded = [sample_frames(clip, critic.settings.num_frames) for clip in clips]
        shared = critic.label_logprobs(decoded, captions)
        tokens = label_tokens(critic.adapter, processor, LIFT)
        single = [label for label in Label if len(tokens[label].label) == 1]
        assert single, "no label is one token here, so first tokens cannot be compared"
        theirs = torch.stack([naive[..., tokens[label].label[0]] for label in single], dim=-1)
        difference = (shared[..., [list(Label).index(label) for label in single]] - theirs).abs().max().item()

    print(f"clips: {len(clips)}")
    print(f"authors_cpu_s_per_clip: {authors / len(clips):.3f}")
    print(f"score_cpu_s_per_clip: {ours / len(clips):.3f}")
    print(f"score_with_reason_cpu_s_per_clip: {ours_with_reason / len(clips):.3f}")
    print(f"speedup_early_stop: {authors_stop / ours_stop:.2f}")
    print(f"speedup: {authors / ours:.2f}")
    print(f"speedup_with_reason: {authors / ours_with_reason:.2f}")
    print(f"max_logprob_diff: {difference:.2e}")


if __name__ == "__main__":
    main()
