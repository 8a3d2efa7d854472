import torch

from lift_trl.alignment.training.draws import draw_rows


SHAPE = (3, 8, 4, 4)


def draw(ids, key=(0, 5), **kwargs):
    return draw_rows(ids, SHAPE, key=key, num_timesteps=1000, **{"caption_dropout": 0.1, **kwargs})


def test_a_row_draws_the_same_in_any_batch():
    together, alone = draw(["a", "b", "c"]), draw(["b"])
    for batch, single in zip(together, alone):
        assert torch.equal(batch[1:2], single)


def test_rows_steps_and_seeds_differ():
    noises = [draw(["a"]).noise, draw(["b"]).noise, draw(["a"], key=(0, 6)).noise, draw(["a"], key=(1, 5)).noise]
    for i, first in enumerate(noises):
        assert all(not torch.equal(first, other) for other in noises[i + 1 :])


def test_draws_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    draw(["a", "b"])
    assert torch.equal(torch.rand(1), expected)


def test_distribution_of_many_rows():
    draws = draw([str(i) for i in range(2000)])
    assert abs(draws.noise.mean()) < 0.01 and abs(draws.noise.std() - 1) < 0.01
    assert 0 <= draws.timesteps.min() and draws.timesteps.max() <= 999
    assert abs(draws.timesteps.float().mean() - 499.5) < 25  # 4 standard errors
    assert 0.06 < draws.drop_caption.float().mean() < 0.14
    assert not draw(["a", "b"], caption_dropout=0.0).drop_caption.any()


def test_timestep_range_is_a_stratum():
    quarter = draw([str(i) for i in range(300)], timestep_range=(0.25, 0.5)).timesteps
    assert quarter.min() >= 250 and quarter.max() < 500
