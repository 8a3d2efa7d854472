"""A trainer's pushes under the rules of `push`: whose repository it is, who may see it, and which files go."""

from glob import escape
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub import HfApi, upload_folder
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from ..gallery import GALLERY
from .files import artifact_files
from .repository import open_repo


#: Stock's pickle of the arguments, the token among them: nothing reads it.
_ARGUMENTS_FILE = "training_args.bin"


class PushingTrainer(Trainer):
    """The first of the bases: a `Trainer` that pushes what `push` pushes of its `output_dir`, and where `push` would."""

    #: Of what it trains, a key of `push.KINDS`.
    kind: ClassVar[str]
    hub_model_id: Any
    push_in_progress: Any = None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """
        Makes the repository, or sees that it is one of ours.

        Raises:
            ValueError: if it is there and not as `private` (by default `hub_private_repo`) as it should be, or if it holds
                something else than what is trained.
        """
        if not self.is_world_process_zero():
            return
        name = self.hub_model_id or self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name
        api = HfApi(token=token or self.args.hub_token)
        wanted = self.args.hub_private_repo if private is None else private
        self.hub_model_id = open_repo(api, name, "model", self.kind, private=wanted).id

    # Private in transformers 5.24: _push_from_checkpoint. When it goes,
    # `test_every_save_pushes_the_lora_of_that_step` and `test_every_save_leaves_a_critic_that_loads_with_its_settings` fail.

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Pushes model and card of a checkpoint, and as `hub_strategy` asks the checkpoint itself to resume from."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        last: Any = self.push_in_progress
        running = last is not None and not last.is_done()
        if running and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        message = f"Training in progress, step {self.state.global_step}"
        jobs = [self._upload(checkpoint_folder, message, run_as_future=True)]
        whole = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: Path(checkpoint_folder).name}
        if name := whole.get(HubStrategy(self.args.hub_strategy)):
            jobs.append(self._upload(checkpoint_folder, message, run_as_future=True, path_in_repo=name))
        in_progress: Any = PushInProgress()
        in_progress.jobs = [*last.jobs, *jobs] if running else jobs
        self.push_in_progress = in_progress

    def _upload(
        self,
        folder: Path | str,
        message: str | None,
        *,
        run_as_future: bool,
        token: str | None = None,
        revision: str | None = None,
        path_in_repo: str | None = None,
        clips: tuple[str, ...] = (),
    ) -> Any:
        """Uploads the model in `folder` with the `clips` of its card; with `path_in_repo` all of a checkpoint, to there."""
        options: dict[str, Any] = {
            "repo_id": self.hub_model_id,
            "path_in_repo": path_in_repo,
            "commit_message": message,
            "token": token or self.args.hub_token,
            "run_as_future": run_as_future,
            "revision": revision or self.args.hub_revision,
        }
        if path_in_repo is None:
            options["allow_patterns"] = [escape(name) for name in (*artifact_files(Path(folder), self.kind), *clips)]
            options["delete_patterns"] = f"{GALLERY}/*"  # those of an earlier run's card
        else:
            options["ignore_patterns"] = [_ARGUMENTS_FILE, ".*"]
        return upload_folder(folder_path=folder, **options)
