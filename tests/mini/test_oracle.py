"""The judge that reads pixels, against the truth of renderings: as they are, after mp4, after the VAE."""

import numpy as np
import pytest
import torch

from lift_trl.mini.checkpoints import VIDEO_MODELS, load_pipeline
from lift_trl.mini.oracle import judge, observe
from lift_trl.mini.shapes import ATTRIBUTES, SCENES, DefectRates, draw_clip, enlarge
from lift_trl.rubric import Dimension, Label
from lift_trl.store.video_io import read_video, write_video


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(20)
    return [draw_clip(rng, DefectRates(), scene) for scene in SCENES]


def accuracy(clips, videos):
    """Share of clips whose label is the true one, by dimension, and whose attributes are those shown."""
    seen = [observe(video) for video in videos]
    figures = {
        d: np.mean([s.labels(clip.caption)[d] == clip.labels[d] for s, clip in zip(seen, clips)]) for d in Dimension
    }
    figures |= {a: np.mean([getattr(s, a) == getattr(c.shown, a) for s, c in zip(seen, clips)]) for a in ATTRIBUTES}
    return figures


def test_renderings_are_judged_without_error(clips):
    assert set(accuracy(clips, [clip.video for clip in clips]).values()) == {1.0}


def test_enlarged_clips_survive_h264(clips, tmp_path):
    videos = []
    for clip in clips:
        write_video(tmp_path / "clip.mp4", enlarge(clip.video), fps=8)
        videos.append(read_video(tmp_path / "clip.mp4").frames)
    assert min(accuracy(clips, videos).values()) >= 0.97


@pytest.mark.parametrize("family", VIDEO_MODELS)
def test_clips_survive_the_trained_vae(family, clips):
    vae = load_pipeline(family).vae
    video = torch.from_numpy(np.stack([clip.video for clip in clips])).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        decoded = torch.cat([vae.decode(vae.encode(v).latent_dist.mode()).sample for v in video.split(12)])
    videos = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()
    assert min(accuracy(clips, videos).values()) >= 0.93


def test_nothing_to_see_is_bad_in_every_dimension():
    blank = np.full((9, 48, 48, 3), 40, np.uint8)
    assert set(judge(blank, SCENES[0]).values()) == {Label.BAD}
    assert observe(blank).visible_frames == 0


def test_a_shape_that_stands_still_has_no_direction(clips):
    still = np.repeat(clips[0].video[:1], 9, axis=0)
    assert observe(still).direction == ""
    assert "direction" in observe(still).wrong_attributes(clips[0].shown)


def test_one_picture_over_and_over_is_no_smooth_motion(clips, tmp_path):
    clip = next(clip for clip in clips if clip.labels[Dimension.MOTION_SMOOTHNESS] is Label.GOOD)
    assert judge(clip.video, clip.caption)[Dimension.MOTION_SMOOTHNESS] is Label.GOOD
    write_video(tmp_path / "still.mp4", enlarge(np.repeat(clip.video[4:5], 9, axis=0)), fps=8)
    still = read_video(tmp_path / "still.mp4").frames
    assert observe(still).frozen and judge(still, clip.caption)[Dimension.MOTION_SMOOTHNESS] is Label.BAD
    assert not any(observe(clip.video).frozen for clip in clips)


def test_a_blend_of_shapes_is_deformed():
    rng = np.random.default_rng(0)
    from lift_trl.mini.oracle import MISFIT, fit_frames
    from lift_trl.mini.shapes import shape_coverage

    centre = np.array([[24.0, 24.0]])
    both = np.maximum(shape_coverage("circle", centre - 4, 8.0), shape_coverage("circle", centre + 6, 8.0))
    frame = both[..., None] * np.array([0.9, 0.16, 0.16], np.float32) + 0.1 * rng.random()
    assert fit_frames(np.clip(frame, 0, 1).astype(np.float32)).misfit[0] > MISFIT[1]
