"""Prompts embedded once each and kept on disk, so that the text encoder can leave before anything else is loaded."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open

from ...records import TextCondition, content_id
from ...store.sharding import chunks, pending, share
from ...video_models import PipelineSource
from ...video_models.source import release_memory
from .cache_format import text_bytes, text_from_bytes


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
        The embedding of one prompt.

        Raises:
            FileNotFoundError, ValueError: naming the file, if it is missing or damaged.
        """
        return text_from_bytes(self.stored(prompt))

    def stored(self, prompt: str) -> bytes:
        """The file of one prompt as `text_bytes` wrote it; raises as `load` does."""
        path = self.path(prompt)
        remedy = "Run recipes/cache.py again; it embeds what is missing."
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no embedding of {prompt!r}. {remedy}")
        try:
            with safe_open(path, framework="pt"):
                return path.read_bytes()
        except SafetensorError as error:
            raise ValueError(f"{path}: the embedding of {prompt!r} is damaged ({error}). {remedy}") from error

    def batch(self, prompts: Sequence[str], device: torch.device, dtype: torch.dtype) -> TextCondition:
        """The embeddings of B prompts, on `device`, embeddings in `dtype`; masks keep their own."""
        texts = [self.load(prompt) for prompt in prompts]
        stacked = {name: torch.stack([text[name] for text in texts]).to(device) for name in texts[0]}
        return TextCondition(
            {name: value.to(dtype) if value.is_floating_point() else value for name, value in stacked.items()}
        )

    def embed(self, source: PipelineSource, prompts: Sequence[str], state: PartialState, dtype: torch.dtype) -> None:
        """Embeds what is missing of `prompts`, each by one process, with the text encoder loaded once and dropped after."""
        todo = self.missing(prompts)
        # Every process must have listed the folder before any of them writes to it.
        state.wait_for_everyone()
        mine = share(todo, rank=state.process_index, world_size=state.num_processes)
        if mine:
            self.folder.mkdir(parents=True, exist_ok=True)
            pipe = source.load(*source.adapter.text_components, dtype=dtype, device=state.device)
            for batch in chunks(mine, _PROMPTS_PER_BATCH):
                texts = source.adapter.encode_text(pipe, batch)
                for index, prompt in enumerate(batch):
                    path = self.path(prompt)
                    partial = path.with_name(f".{path.name}.{state.process_index}.tmp")
                    partial.write_bytes(
                        text_bytes(TextCondition({name: tensor[index] for name, tensor in texts.items()}))
                    )
                    partial.replace(path)
            del pipe
            release_memory()
        state.wait_for_everyone()

    def move(self, prompts: Sequence[str], target: "TextCache") -> None:
        """Gives the embeddings of `prompts` to another folder of the same file system."""
        target.folder.mkdir(parents=True, exist_ok=True)
        for prompt in prompts:
            self.path(prompt).replace(target.path(prompt))


def _is_whole(path: Path) -> bool:
    """Whether there is such a file, as long as its header says; its tensors are not read."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (FileNotFoundError, SafetensorError):
        return False
