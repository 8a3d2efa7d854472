"""One seeded step of each objective: its loss and the norm of its gradient, as they were when it was written."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.testing import assert_close

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset, collate
from lift_trl.alignment.objectives import OBJECTIVES, ObjectiveArguments
from tests.alignment.conftest import make_trainer, moving_square
from tests.contracts.video_models import VIDEO_MODELS


#: Objective -> loss and gradient norm of a batch, float32 on a CPU. They move only with a reason in the commit.
GOLDEN = {
    "sft": (6.210878849029541, 0.09881729329877803),
    "rwl": (4.779214382171631, 0.07828176936160723),
    "rs": (7.831100940704346, 0.12002848208731434),
    "best_of_n": (6.83151912689209, 0.1017569784430383),
    "exp": (7.743825435638428, 0.11847109648829104),
    "dpo": (2.563873291015625, 0.041537483890368224),
    "kto": (2.574281692504883, 0.060679733738991985),
    "nft": (3.1732072830200195, 0.05130359368049324),
    "awm": (3.1738150119781494, 0.054068931805075),
}


def stir(trainer) -> None:
    """A LoRA that has left its start, where B is 0 and half of the gradient with it."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in sorted(trainer.model.named_parameters()):
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def seeded_batch(trainer):
    """All rows of the trainer's dataset with latents from a generator: encoders of videos may change with their version."""
    batch = collate(trainer.train_dataset.__getitems__(range(len(trainer.train_dataset))))
    for seed, name in enumerate(("latent_mean", "latent_logvar"), start=1):
        shape = batch[name].shape[1:]
        rows = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1000 + sum(map(ord, row))))
            for row in batch["id"]
        ]
        batch[name] = torch.stack(rows) * (0.5 if seed == 2 else 2.0)
    return batch


@pytest.mark.parametrize("objective", sorted(GOLDEN))
def test_loss_and_gradient_of_a_seeded_step(tmp_path, pipeline_dir, cached, objective):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, objective=objective, real_weight=0.5, caption_dropout=0.3)
    stir(trainer)
    loss = trainer.compute_loss(trainer.model.train(), seeded_batch(trainer))
    loss.backward()
    squares = sum(p.grad.double().square().sum() for p in trainer.model.parameters() if p.requires_grad)
    assert (loss.item(), float(squares) ** 0.5) == pytest.approx(GOLDEN[objective], rel=1e-5)


#: The same of flow-matching families, on their own tiny checkpoints: (family, objective).
FLOWS = {
    ("wan-2.1", "rwl"): (3.269571304321289, 0.12493242893190859),
    ("wan-2.1", "dpo"): (0.05301680043339729, 0.3744132410279611),
    ("wan-2.1", "kto"): (0.018253084272146225, 0.06816034113357698),
    ("wan-2.1", "nft"): (-0.11740326881408691, 0.12388606410441058),
    ("wan-2.1", "awm"): (-0.11553867906332016, 0.13036853422019884),
    ("hunyuan-1.5", "rwl"): (3.1345341205596924, 0.17317703018391944),
    ("hunyuan-1.5", "dpo"): (0.013131126761436462, 0.07972992864791362),
    ("hunyuan-1.5", "kto"): (0.017233802005648613, 0.09058151038749093),
    ("hunyuan-1.5", "nft"): (-0.19308209419250488, 0.07318290795594413),
    ("hunyuan-1.5", "awm"): (-0.19284002482891083, 0.07268196634879863),
    ("ltx", "rwl"): (3.4184420108795166, 0.12479317027271132),
    ("ltx", "dpo"): (0.026123201474547386, 0.39191625691726767),
    ("ltx", "kto"): (0.015057203359901905, 0.06121265677349765),
    ("ltx", "nft"): (-0.005841175559908152, 0.15040078514214555),
    ("ltx", "awm"): (-0.009193976409733295, 0.1580941256885692),
}


@pytest.fixture(scope="module")
def flow(tmp_path_factory, rated_videos):
    """A family's tiny pipeline and a cache of the rated clips by it."""

    @cache
    def of(family):
        pipe = VIDEO_MODELS[family]()
        folder, clips, fps = tmp_path_factory.mktemp(family), rated_videos, 8
        if family == "ltx":  # counts positions in seconds, at 25 frames in each
            clips = [
                replace(video, video=moving_square(folder / f"{seed}.mp4", seed, fps=25))
                for seed, video in enumerate(clips)
            ]
            fps = None
        cache_videos(pipe, clips, folder / "cache", num_frames=9, height=32, width=32, fps=fps)
        return pipe, folder / "cache"

    return of


@pytest.mark.parametrize("family, objective", FLOWS)
def test_a_seeded_step_of_a_flow(tmp_path, flow, family, objective):
    """Beside the figures: nft of beta 1 with the best advantage is sft, on what the family really predicts."""
    pipe, folder = flow(family)
    trainer = make_trainer(pipe, tmp_path, CachedVideoDataset(folder), objective=objective, real_weight=0.0)
    stir(trainer)
    batch = seeded_batch(trainer)
    loss = trainer.compute_loss(trainer.model.train(), batch)
    loss.backward()
    squares = sum(p.grad.double().square().sum() for p in trainer.model.parameters() if p.requires_grad)
    if objective == "nft":
        rows = trainer._step_rows(trainer.model, batch, trainer._draw(batch, (0,), (0.0, 1.0), True))
        best = rows._replace(advantage=torch.ones_like(rows.error))
        args = ObjectiveArguments(objective="nft", beta=1.0, advantage_clip=1.0)
        assert_close(OBJECTIVES["nft"].loss(best, args), rows.error)
    assert (loss.item(), float(squares) ** 0.5) == pytest.approx(FLOWS[family, objective], rel=1e-5)
