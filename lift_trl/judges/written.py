"""Judges that write: a stock vision-language model, one question, greedy text."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from ..critic_models import find_critic_model
from ..records import StoredVideo, VideoSource
from ..store.video_io import Clip
from ..store.weights import load_whole
from .native import NativeJudge, Scale, Verdict, load_dtype


class WrittenJudge(NativeJudge):
    """
    A chat model whose values stand in its answer.

    Attributes:
        native_video: whether the frames go in as one video.
        max_new_tokens: length at which an answer is cut; values behind it are missing, so the clip is unscored.
    """

    native_video: bool
    max_new_tokens: int

    @classmethod
    def from_pretrained(
        cls, name: str, *, revision: str | None = None, scale: Scale | None = None, device: torch.device | str = "cpu"
    ) -> "WrittenJudge":
        """
        As `NativeJudge.from_pretrained`.

        Raises:
            ValueError: if a weight is missing or of another shape.
        """
        model = load_whole(
            AutoModelForImageTextToText,
            name,
            revision=revision or "main",
            dtype=load_dtype(device),
            use_safetensors=True,
        )
        processor = AutoProcessor.from_pretrained(name, revision=revision)
        own_name = cls.name_of(name, revision, scale)
        return cls(model.to(device).eval(), processor, name=own_name, scale=scale)

    @abstractmethod
    def frames(self, video: VideoSource | StoredVideo | str) -> Clip:
        """The frames that it is shown."""

    @abstractmethod
    def read(self, answer: str, tokens: Sequence[int], logits: Tensor) -> dict[str, float]:
        """
        The values in its `answer`.

        Args:
            tokens: of the answer.
            logits: [T, V], from which each was chosen.

        Raises:
            UnreadableAnswerError: if one is missing or off the scale.
        """

    @torch.inference_mode()
    def judge(self, video: VideoSource | StoredVideo | str, prompt: str) -> Verdict:
        """As `NativeJudge.judge`."""
        clip = self.frames(video)
        options = {"do_resize": False} if self.native_video else {}
        family = find_critic_model(
            self.model.config.model_type, native_video=self.native_video, processor_kwargs=options
        )
        messages = family.prompt(list(clip.frames), self.question.replace("{prompt}", prompt))
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = {k: v.to(self.model.device) for k, v in family.encode(self.processor, [text], [clip]).items()}
        output = self.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            return_dict_in_generate=True,
            output_logits=True,
        )
        tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        answer = self.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        return Verdict(self.read(answer, tokens, torch.cat(output.logits).float().cpu()), answer.strip())
