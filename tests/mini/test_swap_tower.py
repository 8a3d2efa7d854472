"""A language model goes on reading its tokens behind another vision tower."""

import copy

import numpy as np
import torch

from lift_trl.mini.checkpoints import load_vlm
from lift_trl.mini.train.seen_clips import draw_clips
from lift_trl.mini.train.swap_tower import swap
from lift_trl.mini.train.vlm import encode_pictures
from lift_trl.mini.train.vlm_tasks import frames_of


def test_the_connector_undoes_what_another_tower_does_to_the_tokens():
    vlm, _ = load_vlm()
    tower = copy.deepcopy(vlm)
    norm = tower.model.vision_model.post_layernorm
    with torch.no_grad():  # the same features, turned around and of another size: a projection can undo that
        norm.weight.mul_(-1.5)
        norm.bias.mul_(-1.5)
    rng = np.random.default_rng(0)
    pictures = frames_of(draw_clips(rng, 8))
    with torch.no_grad():
        known = encode_pictures(vlm, pictures)
        spread = known.flatten(0, 1).var(0).sum()

        def apart(model):
            return ((encode_pictures(model, pictures) - known).square().sum(-1).mean() / spread).item()

        strange = copy.deepcopy(vlm)
        strange.model.vision_model.load_state_dict(tower.model.vision_model.state_dict())
        assert apart(strange) > 1
    swapped = swap(vlm, tower, draw_clips(rng, 200), num_steps=60)
    assert torch.equal(swapped.model.vision_model.post_layernorm.weight, norm.weight)
    assert torch.equal(swapped.lm_head.weight, vlm.lm_head.weight)
    with torch.no_grad():
        assert apart(swapped) < 0.1
