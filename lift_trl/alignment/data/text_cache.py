"""Prompts embedded once each and kept on disk, so that the text encoder can leave before anything else is loaded."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...engines import Append, Work, Workers
from ...records import TextCondition, content_id
from ...store.sharding import pending
from ...video_models import PipelineSource
from .cache_format import text_bytes, text_from_bytes


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

    def embed(self, source: PipelineSource, prompts: Sequence[str], workers: Workers, dtype: torch.dtype) -> None:
        """Embeds what is missing of `prompts`, each by one of `workers`, where the text encoder comes and leaves again."""
        no_rows: list[Any] = []  # a prompt has a file only
        workers.run(partial(self._encoder, source, dtype), self.missing(prompts), no_rows.append)

    def _encoder(self, source: PipelineSource, dtype: torch.dtype, device: torch.device) -> Work[str]:
        """What embeds prompts, with the text encoder in memory."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pipe = source.load(*source.adapter.text_components, dtype=dtype, device=device)

        def encode(prompts: Sequence[str], append: Append) -> None:
            for prompt in prompts:  # one at a time: the batch that a prompt is in might change its last bits
                texts = source.adapter.encode_text(pipe, [prompt])
                path = self.path(prompt)
                partial_file = path.with_name(f".{path.name}.{token_hex(4)}.tmp")  # two machines may share one
                partial_file.write_bytes(
                    text_bytes(TextCondition({name: tensor[0] for name, tensor in texts.items()}))
                )
                partial_file.replace(path)

        return encode

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
