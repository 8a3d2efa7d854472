"""Prompts embedded once each and kept on disk, so that the text encoder can leave before anything else is loaded."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..records import TextCondition, content_id
from ..store.sharding import chunks, pending, share
from ..video_models import PipelineSource
from ..video_models.source import TEXT_COMPONENTS, release_memory


# T5 has no cross-talk between prompts in a batch; this only bounds memory.
_PROMPTS_PER_BATCH = 8


class TextCache:
    """
    A folder with one file for each embedded prompt, named by a hash of the prompt and of the text encoder.

    Args:
        folder: where the files are; made when needed.
        fingerprint: of tokenizer, text encoder and precision; part of every file name.
    """

    def __init__(self, folder: Path | str, fingerprint: str) -> None:
        self.folder = Path(folder)
        self.fingerprint = fingerprint

    def path(self, prompt: str) -> Path:
        """Where the embedding of `prompt` is or will be."""
        return self.folder / f"{content_id(prompt, self.fingerprint)}.safetensors"

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """The prompts without an embedding, each once, in their order."""
        wanted = list(dict.fromkeys(prompts))
        return pending(wanted, [prompt for prompt in wanted if _is_whole(self.path(prompt))])

    def load(self, prompt: str) -> TextCondition:
        """
        The embedding of one prompt: `prompt_embeds` [L, D], `prompt_mask` [L].

        Raises:
            FileNotFoundError, ValueError: naming the file, if it is missing or damaged.
        """
        path = self.path(prompt)
        remedy = "Run recipes/cache.py again; it embeds what is missing."
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no embedding of {prompt!r}. {remedy}")
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: the embedding of {prompt!r} is damaged ({error}). {remedy}") from error
        return TextCondition(tensors["prompt_embeds"], tensors["prompt_mask"])

    def embed(self, source: PipelineSource, prompts: Sequence[str], state: PartialState, dtype: torch.dtype) -> None:
        """Embeds what is missing of `prompts`, each by one process, with the text encoder loaded once and dropped after."""
        todo = self.missing(prompts)
        # Every process must have listed the folder before any of them writes to it.
        state.wait_for_everyone()
        mine = share(todo, rank=state.process_index, world_size=state.num_processes)
        if mine:
            self.folder.mkdir(parents=True, exist_ok=True)
            pipe = source.load(*TEXT_COMPONENTS, dtype=dtype, device=state.device)
            for batch in chunks(mine, _PROMPTS_PER_BATCH):
                text = source.adapter.encode_text(pipe, batch)
                for prompt, embeds, mask in zip(batch, text.prompt_embeds.cpu(), text.prompt_mask.cpu(), strict=True):
                    path = self.path(prompt)
                    partial = path.with_name(f".{path.name}.{state.process_index}.tmp")
                    save_file({"prompt_embeds": embeds.clone(), "prompt_mask": mask.clone()}, partial)
                    partial.replace(path)
            del pipe
            release_memory()
        state.wait_for_everyone()


def _is_whole(path: Path) -> bool:
    """Whether there is such a file, as long as its header says; its tensors are not read."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (FileNotFoundError, SafetensorError):
        return False
