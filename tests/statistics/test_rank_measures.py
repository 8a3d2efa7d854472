"""Rank measures against scipy's and hand counts, on odd data: ties, clusters, one side empty."""

import numpy as np
import pytest
from scipy import stats

from lift_trl.hub.artifact_cards import EVALUATION_FILE, artifact_card
from lift_trl.judges.verdicts import Verdict, critic_report, evaluate_verdicts
from lift_trl.report.judges import compare_judges
from lift_trl.report.tables import critic_order_table
from lift_trl.rubric import LIFT, REWARDS, Dimension, Label
from lift_trl.statistics.label_measures import quadratic_kappa
from lift_trl.statistics.rank_measures import CHUNK, auc, spearman, without_prior
from lift_trl.store.manifest import METADATA_FILE, Artifact, write_rows


BAD, NORMAL, GOOD = Label
SEMANTIC, MOTION, FIDELITY = Dimension
RNG = np.random.default_rng(3)


def drawn(num=31, resamples=CHUNK + 5):
    """Scores with ties, three labels, and how often each verdict was drawn."""
    truth = RNG.integers(0, 3, num)
    scores = np.round(truth * 0.3 + RNG.normal(0, 0.5, num), 1)
    return scores, truth, RNG.integers(0, 4, (resamples, num)).astype(float)


def test_auc_is_that_of_the_u_statistic_in_every_resample():
    scores, truth, weights = drawn()
    found = auc(scores, truth == 2, weights)
    for row, value in zip(weights.astype(int), found, strict=True):
        s, t = np.repeat(scores, row), np.repeat(truth == 2, row)
        u = stats.mannwhitneyu(s[t], s[~t]).statistic
        assert value == pytest.approx(u / (t.sum() * (~t).sum()))
    assert np.isnan(auc(scores, truth == 7, weights[:1]))


def test_spearman_is_scipys_in_every_resample():
    scores, truth, weights = drawn()
    for row, value in zip(weights.astype(int), spearman(scores, truth, weights), strict=True):
        assert value == pytest.approx(stats.spearmanr(np.repeat(scores, row), np.repeat(truth, row)).statistic)
    assert np.isnan(spearman(scores, np.ones_like(scores), weights[:1]))


def test_quadratic_kappa_by_hand():
    """Bad called Good weighs four times as much as Bad called Normal."""
    table = np.array([[4, 1, 0], [1, 2, 1], [0, 0, 3]])
    # Observed disagreement 3 * 1; expected: rows 5, 4, 3, columns 5, 3, 4 of 12.
    expected = (5 * 3 + 4 * 5 + 4 * 4 + 3 * 3 + 4 * (5 * 4 + 3 * 5)) / 12
    assert quadratic_kappa(table) == pytest.approx(1 - 3 / expected)
    assert quadratic_kappa(np.diag([3, 4, 5])) == 1
    assert quadratic_kappa(np.outer([3, 4, 5], [2, 2, 8])) == pytest.approx(0)


def lenient(num=60):
    """A critic that ranks well and says Good of nearly everything."""
    rows = []
    for i in range(num):
        truth = (BAD, NORMAL, GOOD)[i % 3]
        p = {BAD: (0.30, 0.15, 0.55), NORMAL: (0.12, 0.30, 0.58), GOOD: (0.05, 0.12, 0.83)}[truth]
        rows.append(Verdict(f"v{i // 2}", MOTION, truth, GOOD, p))
    return rows


def test_a_critic_whose_labels_lean_but_whose_order_is_right_is_seen():
    figures = {row.metric: row for row in evaluate_verdicts(lenient(), system="lenient")}
    assert figures["critic/overall/balanced_accuracy"].value == pytest.approx(1 / 3)
    assert figures["critic/overall/quadratic_kappa"].value == pytest.approx(0)
    for name in ("auc_good", "auc_bad", "prior_corrected_balanced_accuracy"):
        row = figures[f"critic/motion_smoothness/{name}"]
        assert row.value == 1 and 0.8 < row.ci95[0] < row.ci95[1] <= 1 and row.n == 30
    assert figures["critic/overall/spearman"].value == pytest.approx(1)
    text = critic_report(lenient(), list(figures.values()), [])
    assert "| | Spearman | AUC of Good | AUC of Bad | quadratic kappa |" in text
    assert "| motion smoothness | 1.000" in text
    order = critic_order_table(list(figures.values()))
    assert order.columns[:3] == ("critic against people", "Spearman", "AUC of Good") and order.rows[0][0] == "overall"
    motion = next(row for row in order.rows if row[0] == "motion smoothness")
    assert motion[1] == "1.00" and motion[2].startswith("1.00 (0.89")
    assert len(critic_order_table(list(figures.values()), num_metrics=3).columns) == 4
    assert critic_order_table([row for row in figures.values() if row.metric.endswith("/accuracy")]) is None


def test_what_an_evaluation_leaves_in_a_critics_folder_stands_on_its_card(tmp_path):
    Artifact(kind="critic", config={"num_frames": 8}).save(tmp_path)
    assert "Not evaluated." in artifact_card(tmp_path, "user/critic")
    text = critic_report(lenient(), evaluate_verdicts(lenient(), system="lenient"), [])
    (tmp_path / EVALUATION_FILE).write_text(text)
    card = artifact_card(tmp_path, "user/critic")
    assert text.strip() in card and "AUC of Bad" in card and "Not evaluated." not in card


def test_the_figures_are_of_expected_rewards_and_intervals_are_over_videos():
    probs = RNG.dirichlet((1, 1, 1), 90)
    truth = [list(Label)[i] for i in RNG.integers(0, 3, 90)]
    rows = [
        Verdict(f"v{i // 3}", list(Dimension)[i % 3], t, list(Label)[int(p.argmax())], tuple(p))
        for i, (t, p) in enumerate(zip(truth, probs))
    ]
    figures = {row.metric: row for row in evaluate_verdicts(rows, system="x")}
    reward = probs @ [REWARDS[label] for label in Label]
    ranks = [t.rank for t in truth]
    assert figures["critic/overall/spearman"].value == pytest.approx(stats.spearmanr(reward, ranks).statistic)
    mine = [i for i in range(90) if i % 3 == 1]
    is_good = np.array([truth[i] is GOOD for i in mine])
    u = stats.mannwhitneyu(probs[mine, 2][is_good], probs[mine, 2][~is_good]).statistic
    assert figures[f"critic/{MOTION}/auc_good"].value == pytest.approx(u / (is_good.sum() * (~is_good).sum()))
    for row in figures.values():
        assert row.ci95[0] < row.value < row.ci95[1] and row.n == 30
    # The same verdicts once more on the same videos: the figures stay, and no interval shrinks.
    doubled = {row.metric: row for row in evaluate_verdicts([*rows, *rows], system="x")}
    for name, row in figures.items():
        assert doubled[name].value == pytest.approx(row.value) and doubled[name].ci95 == pytest.approx(row.ci95)


def test_the_leaning_of_each_dimension_is_its_own():
    """Pooled, a lenient dimension and a severe one would hide each other's leaning."""
    p = {BAD: (0.83, 0.12, 0.05), NORMAL: (0.58, 0.30, 0.12), GOOD: (0.55, 0.15, 0.30)}
    severe = [Verdict(v.video, FIDELITY, v.truth, BAD, p[v.truth]) for v in lenient()]
    figures = {row.metric: row.value for row in evaluate_verdicts([*lenient(), *severe], system="x")}
    assert figures["critic/overall/prior_corrected_balanced_accuracy"] == 1
    assert without_prior(np.array([[0.5, 0.3, 0.2]] * 2)).tolist() == [0, 0]


def test_labels_alone_are_ranked_by_themselves():
    said = [(BAD, BAD), (GOOD, NORMAL), (GOOD, GOOD), (NORMAL, BAD)]
    rows = [Verdict(f"v{i}", SEMANTIC, truth, label, None) for i, (truth, label) in enumerate(said)]
    figures = {row.metric: row.value for row in evaluate_verdicts(rows, system="x")}
    assert figures["critic/overall/auc_good"] == 1 and figures["critic/overall/auc_bad"] == pytest.approx(5 / 6)
    assert not any("prior" in name or "calibration" in name for name in figures)


def test_calibration_is_of_the_label_that_was_chosen():
    """A sure Bad that is right is well calibrated; by the probability of Good it would be as wrong as can be."""
    rows = [Verdict(f"v{i}", SEMANTIC, BAD, BAD, (0.95, 0.04, 0.01)) for i in range(10)]
    figures = {row.metric: row.value for row in evaluate_verdicts(rows, system="x")}
    assert figures["critic/overall/calibration_error"] == pytest.approx(0.05)


def test_the_reliability_of_a_report_is_of_the_label_that_was_chosen(tmp_path):
    probs = {BAD: 0.95, NORMAL: 0.04, GOOD: 0.01}
    row = {d.value: BAD for d in Dimension} | {"probs": {d.value: probs for d in Dimension}, "reward": 0.05}
    for name in ("scored", "truth"):
        write_rows(tmp_path / name / METADATA_FILE, [{**row, "id": f"v{i}"} for i in range(12)])
    figures, bins, _ = compare_judges("oracle", {"base": tmp_path / "scored"}, {"base": tmp_path / "truth"})
    assert [(one.n, one.accuracy) for one in bins if one.n] == [(36, 1.0)]
    assert next(one.confidence for one in bins if one.n) == pytest.approx(0.95)
    assert {row.value for row in figures if row.metric.endswith("/accuracy")} == {1.0}


def test_figures_do_not_depend_on_the_order_of_sets(tmp_path):
    """Clips of one prompt are one cluster over all systems: summed in their order, whatever their hashes."""
    rng = np.random.default_rng(0)
    names = [f"system {i}" for i in range(6)]
    for name in names:
        for kind in ("scored", "truth"):
            rows = []
            for i in range(4):
                share = rng.dirichlet([1, 1, 1])
                probs = {d.value: dict(zip(LIFT.labels, share.tolist())) for d in Dimension}
                row = {d.value: LIFT.labels[int(share.argmax())] for d in Dimension}
                rows.append({**row, "id": f"{name}{i}", "prompt": f"p{i}", "probs": probs, "reward": 0.5})
            write_rows(tmp_path / kind / name / METADATA_FILE, rows)
    folders = [{name: tmp_path / kind / name for name in names} for kind in ("scored", "truth")]
    found = compare_judges("oracle", *folders)
    assert {row.n for row in found.figures} == {4}
    assert compare_judges("oracle", folders[0], dict(reversed(folders[1].items()))) == found
