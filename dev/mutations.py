"""Plants bugs, one at a time, in a copy of the checkout, and says which ones the tests catch.

`python dev/mutations.py` plants all, `python dev/mutations.py rotary text` those whose names hold a word. A bug is caught if
pytest fails; a survivor is a test to write. Not part of CI; results are in dev/LOG.md.
"""

import argparse
import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)

# The tests' environment first, then what they import, for the forks. lift_trl is not among it: its files are to change.
import tests.conftest  # noqa: E402, F401  isort: skip
import diffusers.pipelines.cogvideo.pipeline_cogvideox  # noqa: E402, F401
import peft  # noqa: E402, F401
import pytest  # noqa: E402
import transformers.trainer  # noqa: E402, F401


class Mutation(NamedTuple):
    """`old`, which stands once in `file`, becomes `new`; `tests` are pytest's arguments that should fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: str


COGVIDEOX, WAN, FLOW = (f"lift_trl/video_models/{name}.py" for name in ("cogvideox", "wan", "flow"))
TRAINER, DRAWS = "lift_trl/alignment/reward_weighted_trainer.py", "lift_trl/alignment/training/draws.py"
GENERATE, VALIDATION = "lift_trl/alignment/sampling/generate.py", "lift_trl/alignment/sampling/validation.py"
OBJECTIVES, FORMAT = "lift_trl/alignment/objectives", "lift_trl/alignment/data/cache_format.py"
CORRECTION, TREE = "lift_trl/feedback/correction/loop.py", "lift_trl/critic/tree.py"
PAIR_LOSS, PAIR_TESTS = "lift_trl/critic/pairs/loss.py", "tests/critic/test_pairs.py -k"
PUSH, PUSHED_FILES, REPOSITORY = (
    f"lift_trl/hub/{name}.py" for name in ("push", "pushing/files", "pushing/repository")
)
CARD_TESTS, PUSH_TESTS = "tests/hub_push/test_cards.py", "tests/hub_push/test_push.py"
STEP_TESTS = "tests/invariants/test_golden_steps.py"
FAMILY_TESTS = f"{STEP_TESTS} tests/contracts/test_video_models.py"
GENERATE_TESTS = "tests/alignment/test_generate.py -k pipelines_own"
VALIDATION_TESTS = "tests/alignment/test_validation.py"
OBJECTIVE_TESTS = "tests/alignment/test_objectives.py tests/alignment/test_objective_goldens.py"

MUTATIONS = (
    # Families
    Mutation(
        "latents not scaled", COGVIDEOX, ".transpose(1, 2) * self._scaling_factor", ".transpose(1, 2)", FAMILY_TESTS
    ),
    Mutation(
        "latents scaled twice",
        COGVIDEOX,
        ".transpose(1, 2) * self._scaling_factor",
        ".transpose(1, 2) * self._scaling_factor**2",
        FAMILY_TESTS,
    ),
    Mutation(
        "log-variance scaled the wrong way",
        COGVIDEOX,
        "+ 2 * math.log(self._scaling_factor)",
        "- 2 * math.log(self._scaling_factor)",
        FAMILY_TESTS,
    ),
    Mutation("rotary embeddings left out", COGVIDEOX, "if self._rotary else None", "if False else None", FAMILY_TESTS),
    Mutation(
        "rotary height and width swapped",
        COGVIDEOX,
        "self._rotary_embedding(num_frames, height, width, noisy",
        "self._rotary_embedding(num_frames, width, height, noisy",
        FAMILY_TESTS,
    ),
    Mutation(
        "1.5's padding frame at the end",
        COGVIDEOX,
        "torch.cat([latents[:, :1]] * missing + [latents], dim=1)",
        "torch.cat([latents] + [latents[:, :1]] * missing, dim=1)",
        f"{STEP_TESTS} -k 1.5",
    ),
    Mutation(
        "1.5 at 8 fps",
        COGVIDEOX,
        "16.0 if self._patch_size_t else 8.0",
        "8.0",
        "tests/contracts/test_video_models.py -k frame_rate",
    ),
    Mutation(
        "Wan's mean not taken away",
        WAN,
        "(posterior.mean.float() - mean) / std",
        "posterior.mean.float() / std",
        FAMILY_TESTS,
    ),
    Mutation(
        "Wan's clock of one second",
        FLOW,
        "levels * scheduler.config.num_train_timesteps, noise",
        "levels, noise",
        FAMILY_TESTS,
    ),
    Mutation("a flow's velocity backwards", FLOW, "noise - x0)", "x0 - noise)", FAMILY_TESTS),
    Mutation(
        "a flow without its shift",
        FLOW,
        "return shift * level / (1 + (shift - 1) * level)",
        "return level",
        FAMILY_TESTS,
    ),
    # A training step
    Mutation(
        "the last timestep never drawn",
        DRAWS,
        "torch.randint(low, high, (), generator=generator)",
        "torch.randint(low, max(high - 1, low + 1), (), generator=generator)",
        f"tests/alignment/test_draws.py {STEP_TESTS}",
    ),
    Mutation(
        "noise equal to the posterior's",
        TRAINER,
        "latents, draws.noise, draws.timesteps)",
        "latents, draws.posterior_noise, draws.timesteps)",
        STEP_TESTS,
    ),
    Mutation("posterior's deviation squared", TRAINER, "torch.exp(0.5 * inputs", "torch.exp(inputs", STEP_TESTS),
    Mutation(
        "caption dropout in evaluation",
        TRAINER,
        "self.config.caption_dropout if training else 0.0",
        "self.config.caption_dropout",
        "tests/alignment/test_reward_weighted_trainer.py -k evaluation",
    ),
    Mutation(
        "the empty prompt everywhere",
        TRAINER,
        "torch.where(drop, self._empty_prompt[name].to(text), text)",
        "self._empty_prompt[name].to(text).expand_as(text)",
        STEP_TESTS,
    ),
    Mutation(
        "another learning rate on resume accepted",
        "lift_trl/alignment/reward_weighted_config.py",
        '"learning_rate", "seed"',
        '"seed"',
        "tests/alignment/test_reward_weighted_trainer.py tests/alignment/test_objective_training.py tests/test_runtime.py",
    ),
    Mutation(
        "wrong text from the third prompt of a shard on",
        "lift_trl/alignment/data/video_dataset.py",
        "(shard, group, row, *texts[prompt])",
        "(shard, group, row, *list(texts.values())[min(list(texts).index(prompt), 1)])",
        "tests/alignment/test_cache.py tests/alignment/test_cache_stream.py",
    ),
    Mutation(
        "texts are not padded again",
        FORMAT,
        "new_zeros(int(stored[name + _LENGTH])",
        "new_zeros(len(stored[name])",
        "tests/alignment/test_cache.py tests/contracts/test_video_models.py",
    ),
    # Objectives
    Mutation(
        "pairs swapped",
        f"{OBJECTIVES}/dpo.py",
        "rows.preference * (own",
        "-rows.preference * (own",
        OBJECTIVE_TESTS,
    ),
    Mutation(
        "DPO without its reference",
        f"{OBJECTIVES}/dpo.py",
        "-rows.error if args.reference_free else",
        "-rows.error if True else",
        OBJECTIVE_TESTS,
    ),
    Mutation(
        "advantages negated",
        f"{OBJECTIVES}/parts/groups.py",
        "advantage=found.value.clamp",
        "advantage=-found.value.clamp",
        OBJECTIVE_TESTS,
    ),
    Mutation(
        "NFT's anchor to the base's error",
        f"{OBJECTIVES}/nft.py",
        "other(rows.old).distance\n",
        "other(rows.old).error\n",
        OBJECTIVE_TESTS,
    ),
    Mutation(
        "KTO's kinds swapped",
        f"{OBJECTIVES}/kto.py",
        "good.long() - bad.long()",
        "bad.long() - good.long()",
        OBJECTIVE_TESTS,
    ),
    Mutation(
        "real videos not weighed by lambda",
        f"{OBJECTIVES}/parts/weights.py",
        "real_weight * total / num_real",
        "total / num_real",
        "tests/alignment/test_row_weights.py",
    ),
    Mutation(
        "the reference is the policy",
        "lift_trl/alignment/training/policies.py",
        "with model.disable_adapter():\n                    yield",
        "yield",
        "tests/alignment/test_objective_training.py",
    ),
    # Sampling
    Mutation(
        "guidance without effect",
        GENERATE,
        "sampling.num_frames, sampling.height, sampling.width, sampling.guidance_scale\n",
        "sampling.num_frames, sampling.height, sampling.width, 1.0\n",
        GENERATE_TESTS,
    ),
    Mutation(
        "a LoRA at half strength",
        "lift_trl/hub/lora/loading.py",
        "transformer.set_adapter([*active, name])",
        "transformer.set_adapter([*active, name]); transformer.set_adapters([*active, name], [0.5] * (len(active) + 1))",
        GENERATE_TESTS,
    ),
    Mutation(
        "wrong text from the third prompt of a batch on",
        GENERATE,
        "texts.batch([video.prompt for video in batch], device, dtype)",
        "texts.batch([batch[min(i, 1)].prompt for i in range(len(batch))], device, dtype)",
        GENERATE_TESTS,
    ),
    Mutation(
        "validation's seed ignored",
        VALIDATION,
        'seed_from("validation", args.validation_seed, self.prompts[index])',
        'seed_from("validation", self.prompts[index])',
        VALIDATION_TESTS,
    ),
    Mutation(
        "validation's guidance ignored",
        VALIDATION,
        "self.num_frames, self.height, self.width, self.guidance_scale),",
        "self.num_frames, self.height, self.width, 1.0),",
        VALIDATION_TESTS,
    ),
    Mutation(
        "validation's base twin sampled with the adapter on",
        VALIDATION,
        "with model.disable_adapter():",
        "if True:",
        VALIDATION_TESTS,
    ),
    Mutation(
        "validation's height and width swapped",
        VALIDATION,
        "self.num_frames, self.height, self.width, self.guidance_scale),",
        "self.num_frames, self.width, self.height, self.guidance_scale),",
        VALIDATION_TESTS,
    ),
    Mutation(
        "validation guided away from nothing",
        VALIDATION,
        "self.texts.batch([self.negative_prompt], device",
        'self.texts.batch([""], device',
        VALIDATION_TESTS,
    ),
    # Feedback
    Mutation(
        "ties upward",
        "lift_trl/rubric.py",
        "max(self.labels, key=votes.count)",
        "max(self.labels[::-1], key=votes.count)",
        "tests/test_rubric.py",
    ),
    Mutation(
        "a rater's repeated ratings pooled upward",
        "lift_trl/store/clip_rows.py",
        "rubric.majority_label(own)) for who, own",
        "max(own, key=rubric.rank)) for who, own",
        "tests/test_raters.py",
    ),
    Mutation(
        "what the critic could not judge counts as agreed",
        CORRECTION,
        "if critic[row_id].label != row.label}",
        "if critic[row_id].label not in (None, row.label)}",
        "tests/feedback/test_correction.py",
    ),
    Mutation(
        "confirmed rows are renamed to the reviewer",
        CORRECTION,
        "if (decision.label, decision.reason) == (row.label, row.reason):",
        "if False:",
        "tests/feedback/test_correction.py",
    ),
    Mutation(
        "a display matrix turned the other way",
        "lift_trl/store/video_io.py",
        "_Orientation(True, c < 0, b < 0)",
        "_Orientation(True, b < 0, c < 0)",
        "tests/store/test_as_a_player_shows.py tests/store/test_video_io.py",
    ),
    # Critic
    Mutation(
        "labels divided by their length",
        TREE,
        "[part.sum() for part in parts]",
        "[part.mean() for part in parts]",
        "tests/critic/test_lift_critic.py",
    ),
    Mutation(
        "logits of the node itself",
        TREE,
        "zip((root, *nodes[:-1]), nodes)",
        "zip(nodes, nodes)",
        "tests/critic/test_lift_critic.py",
    ),
    Mutation("pairs turned round", PAIR_LOSS, "for side in (1, -1)", "for side in (-1, 1)", f"{PAIR_TESTS} margins"),
    Mutation(
        "labels of pairs read a place too late",
        PAIR_LOSS,
        "starts[row] - 1 + k",
        "starts[row] + k",
        f"{PAIR_TESTS} margins",
    ),
    Mutation(
        "a step's pairs by their own number",
        "lift_trl/critic/critic_trainer.py",
        "self.accelerator.num_processes / self._step_rows",
        "self.accelerator.num_processes / max(count, 1)",
        f"{PAIR_TESTS} step_adds",
    ),
    Mutation(
        "dropout in label_accuracy",
        "lift_trl/critic/critic_trainer.py",
        "self.model.eval()",
        "self.model.train()",
        "tests/critic/test_training_as_scoring.py -k accuracy_of_labels",
    ),
    Mutation(
        "frames kept by the file's name",
        "lift_trl/critic/collator.py",
        "key = str(video) if isinstance(video, str | Path) else video_digest(video)",
        "key = Path(video).name if isinstance(video, str | Path) else video_digest(video)",
        "tests/critic/test_collator.py tests/critic/test_training_as_scoring.py",
    ),
    Mutation(
        "a clip's reason is of another label",
        "lift_trl/critic/examples.py",
        "zip(ratings, labels) if given == label]",
        "zip(ratings, labels)]",
        "tests/critic/test_examples.py",
    ),
    # Evaluation
    Mutation(
        "calibration by the probability of Good",
        "lift_trl/judges/verdicts.py",
        "_gaps(probs.max(axis=1), truth == labels)",
        "_gaps(probs[:, -1], truth == labels)",
        "tests/judges/test_verdicts.py tests/statistics/test_rank_measures.py",
    ),
    Mutation(
        "a report's reliability by the probability of Good",
        "lift_trl/report/judges.py",
        "v.probs[v.rubric.rank(v.label)]",
        "v.probs[-1]",
        "tests/statistics/test_rank_measures.py tests/report/test_commands.py -k reliability",
    ),
    Mutation(
        "a vote for whatever stands on the left",
        "lift_trl/statistics/win_rate.py",
        "* (1 if systems[0] == first else -1)",
        "* 1",
        "tests/statistics/test_win_rate.py",
    ),
    Mutation(
        "calibration error of the worst bin alone",
        "lift_trl/judges/verdicts.py",
        "np.abs((w @ gaps)[:, 1:]).sum(axis=-1)",
        "np.abs((w @ gaps)[:, 1:]).max(axis=-1)",
        "tests/judges/test_verdicts.py",
    ),
    # Report and statistics
    Mutation(
        "Holm's correction without its running maximum",
        "lift_trl/statistics/holm.py",
        "highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))",
        "highest = min(1.0, (len(p_values) - rank) * p_values[name])",
        "tests/statistics/test_holm.py",
    ),
    Mutation(
        "a p of 0 where no draw was as extreme",
        "lift_trl/statistics/holm.py",
        "(1 + extreme.sum()) / (1 + NUM_FLIPS)",
        "extreme.sum() / NUM_FLIPS",
        "tests/statistics/test_holm.py",
    ),
    Mutation(
        "clips of one prompt as independent",
        "lift_trl/statistics/intervals.py",
        "_, index = np.unique(names, return_inverse=True)",
        "index = np.arange(len(names))",
        "tests/statistics/test_intervals.py",
    ),
    Mutation(
        "votes seen from the left side",
        "lift_trl/statistics/win_rate.py",
        "* (1 if systems[0] == first else -1)",
        "",
        "tests/statistics/test_win_rate.py",
    ),
    Mutation(
        "drift looked at without its interval",
        "lift_trl/statistics/drift.py",
        "for x in (change, *(estimate.ci95 or ()))]",
        "for x in (change,)]",
        "tests/statistics/test_drift.py",
    ),
    Mutation(
        "a verdict by the uncorrected p",
        "lift_trl/report/verdict.py",
        "_word(difference, corrected.get(system, 1.0), report",
        "_word(difference, difference.p_value if difference else 1.0, report",
        "tests/report/test_page.py -k verdict",
    ),
    Mutation(
        "preferences over all questions",
        "lift_trl/report/votes.py",
        "whole = [vote for vote in votes if vote.dimension is None]",
        "whole = list(votes)",
        "tests/report/test_inputs.py -k prefer",
    ),
    Mutation(
        "differences over clips, not prompts",
        "lift_trl/report/judges.py",
        "estimate = bootstrap_mean(differences, prompts)",
        "estimate = bootstrap_mean(differences, [clip.key for clip in found])",
        "tests/report/test_inputs.py -k of_prompts",
    ),
    Mutation(
        "down counted as up",
        "lift_trl/report/sections.py",
        "((0, 1), (1, -1))",
        "((1, 1), (0, -1))",
        "tests/report/test_page.py -k counted_up",
    ),
    Mutation(
        "the drift of the second system alone",
        "lift_trl/report/clips.py",
        "drifts = [drift for system in others for",
        "drifts = [drift for system in others[:1] for",
        "tests/report/test_inputs.py -k drift_is",
    ),
    Mutation(
        "systems by their names",
        "lift_trl/report/verdict.py",
        "names = [fact.name for fact in report.systems if fact.name != report.base]",
        "names = sorted(fact.name for fact in report.systems if fact.name != report.base)",
        "tests/report/test_page.py -k order_in",
    ),
    Mutation(
        "what is to be watched called an alarm",
        "lift_trl/report/verdict.py",
        'if any(a.level == "alarm" for a in self.drift)',
        'if any(a.level != "ok" for a in self.drift)',
        "tests/report/test_page.py -k verdicts",
    ),
    Mutation(
        "the control's interval not turned",
        "lift_trl/report/verdict.py",
        "(-other.ci95[1], -other.ci95[0])",
        "other.ci95",
        "tests/report/test_page.py -k control",
    ),
    # Cards and pushes
    Mutation(
        "a base's file of terms is looked for beside the LoRA",
        "lift_trl/hub/front_matter.py",
        'link = f"{page}/blob/main/{link}"',
        "pass",
        f"{CARD_TESTS} -k terms",
    ),
    Mutation(
        "a card's own terms overwritten",
        "lift_trl/hub/front_matter.py",
        'card.data.license in (None, "other") and not card.data.get("license_link")',
        "True",
        f"{CARD_TESTS} -k terms",
    ),
    Mutation(
        "a whole critic called an adapter",
        "lift_trl/hub/artifact_cards.py",
        '"adapter" if (folder / ADAPTER_CONFIG).is_file() else "finetune"',
        '"adapter"',
        f"{CARD_TESTS} -k takes",
    ),
    Mutation(
        "clips of base and model swapped",
        "lift_trl/hub/gallery.py",
        '(("base", pair.base), ("aligned", pair.aligned))',
        '(("base", pair.aligned), ("aligned", pair.base))',
        f"{CARD_TESTS} -k gallery",
    ),
    Mutation(
        "the first step's clips in the gallery",
        "lift_trl/hub/gallery.py",
        "max(steps, default=0)",
        "min(steps, default=0)",
        f"{CARD_TESTS} -k beside",
    ),
    Mutation(
        "a card that shows clips that are not there",
        PUSH,
        "if not clip.is_file()]:",
        "if False]:",
        f"{CARD_TESTS} -k clips",
    ),
    Mutation(
        "a report's clips of an earlier push",
        PUSHED_FILES,
        '"comfyui_lora.safetensors",',
        '"comfyui_lora.safetensors", "gallery/*.mp4",',
        f"{CARD_TESTS} -k report",
    ),
    Mutation(
        "public though private was asked for",
        REPOSITORY,
        "if private is not None and info.private != private:",
        "if False:",
        f"{PUSH_TESTS} -k accident",
    ),
    Mutation(
        "another's repository written over",
        REPOSITORY,
        "if not _is_ours(api, info, repo_type, kind):",
        "if False:",
        f"{PUSH_TESTS} -k somebody_else",
    ),
    Mutation(
        "a report's page that everybody sees",
        PUSH,
        "private=repo.private, space_sdk",
        "private=None, space_sdk",
        f"{PUSH_TESTS} -k visible_as",
    ),
    Mutation(
        "stale shards in a dataset",
        PUSH,
        "kept = files if kind in _MIRRORED else None",
        "kept = None",
        f"{PUSH_TESTS} -k stale_shard",
    ),
    Mutation(
        "hidden files pushed",
        PUSHED_FILES,
        '*(".*", "__pycache__", "*.tmp"',
        '*("__pycache__", "*.tmp"',
        f"{PUSH_TESTS} -k stays_here",
    ),
    Mutation(
        "half a large push as an artefact",
        PUSH,
        "if api.file_exists(repo_id, ARTIFACT_FILE, repo_type=repo_type):",
        "if False:",
        f"{PUSH_TESTS} -k in_parts",
    ),
    Mutation(
        "a Space that reads the newest state",
        "lift_trl/ui/clips.py",
        "revision=source.revision, token=token",
        "token=token",
        "tests/ui/test_pins.py",
    ),
    Mutation(
        "a LoRA's training by its folder alone",
        "lift_trl/report/systems.py",
        'if is_lora and adapter_identity(folder).rpartition("@")[2] == content else {}',
        "if is_lora else {}",
        "tests/report/test_inputs.py -k trained",
    ),
    # Pages
    Mutation(
        "an item done after one answer",
        "lift_trl/ui/tally.py",
        "if len(given) == self._num_answers:",
        "if given:",
        "tests/ui/test_vote_log.py -k item_is_done",
    ),
    Mutation(
        "bars of a verdict the wrong way round",
        "lift_trl/ui/verdict.py",
        'style="width:{100 * probs[label]:.1f}%"></i>\'',
        'style="width:{100 - 100 * probs[label]:.1f}%"></i>\'',
        "tests/ui/test_pages.py -k joins",
    ),
    Mutation(
        "a difference of rewards with an unscored clip",
        "lift_trl/ui/verdict.py",
        "if score is not None and score.unscored is None]",
        "if score is not None]",
        "tests/ui/test_pages.py -k rewards_differ",
    ),
    Mutation(
        "names beside the wrong clip",
        "lift_trl/ui/compare/page.py",
        "if compare.is_swapped(voter, pair_id):\n        sides.reverse()",
        "if False:\n        sides.reverse()",
        "tests/ui/test_what_is_shown.py -k sides_of_the_clips",
    ),
    Mutation(
        "a link to another model",
        "lift_trl/ui/compare/page.py",
        "return Wanted(name if name in adapters else adapters[0], prompt, seed)",
        "return Wanted(adapters[0], prompt, seed)",
        "tests/ui/test_what_is_shown.py -k link_says",
    ),
    Mutation(
        "what one visitor skipped hidden from all",
        "lift_trl/ui/arena/votes.py",
        "voter in self._shown.skipped(pair_id)",
        "bool(self._shown.skipped(pair_id))",
        "tests/ui/test_what_is_shown.py -k cannot_see",
    ),
    Mutation(
        "a vote after the names",
        "lift_trl/ui/compare/votes.py",
        "if not self.is_open(voter, pair_id):\n            raise",
        "if False:\n            raise",
        "tests/ui/test_what_is_shown.py -k seen_the_names",
    ),
    Mutation(
        "sides that are never mixed",
        "lift_trl/ui/arena/votes.py",
        "if self.identity.coin(voter, pair.id)",
        "if False",
        "tests/ui/test_pages.py -k sides",
    ),
    Mutation(
        "a vote that names the pair, not the sides",
        "lift_trl/ui/arena/votes.py",
        'video_a=f"{left.system}/{left.name}"',
        'video_a=f"{pair.first.system}/{pair.first.name}"',
        "tests/ui/test_pages.py -k sides",
    ),
    Mutation(
        "a vote that counts twice",
        "lift_trl/ui/vote_log.py",
        'if row["id"] not in self._rows:',
        "if True:",
        "tests/ui/test_vote_log.py -k double_click",
    ),
    # A rubric of one's own
    Mutation(
        "LiFT's rewards for the labels of another rubric",
        "lift_trl/alignment/data/ratings.py",
        "rubric.rewards[video.labels[d]]",
        "LIFT.rewards.get(video.labels[d], 0.5)",
        "tests/test_own_rubric.py",
    ),
    Mutation(
        "scores under whatever rubric",
        "lift_trl/store/rubrics/of_data.py",
        "if one.id != other.id:",
        "if False:",
        "tests/test_own_rubric.py",
    ),
)


def failed_test(mutation: Mutation, checkout: Path) -> str:
    """
    The first test that fails with the bug in `checkout`, which is mended again afterwards; empty where all pass.

    Raises:
        ValueError: if the entry is at fault: its text does not stand once in the file, pytest could not run the tests, or
            the one that failed does so without the bug.
    """
    path = checkout / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file}: {mutation.old!r} stands there {text.count(mutation.old)} times, not once.")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    arguments = ["-q", "-x", "-m", "not slow and not real and not browser", *shlex.split(mutation.tests)]
    try:
        code, printed = _pytest(arguments, checkout)
    finally:
        path.write_text(text, encoding="utf-8")
    # Those of a fixture are errors.
    failed = [line for line in printed.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if code == 0:
        return ""
    if code != 1 or not failed:
        raise ValueError(f"pytest ended with {code}\n{printed[-2000:]}")
    test = failed[0].partition(" ")[2]
    code, printed = _pytest(["-q", test.partition(" - ")[0]], checkout)
    if code != 0:
        raise ValueError(f"{test}: without the bug too\n{printed[-2000:]}")
    return test


def _pytest(arguments: list[str], checkout: Path) -> tuple[int | None, str]:
    """Its exit code, and what it printed."""
    output = checkout.with_name("output.txt")
    process = multiprocessing.get_context("fork").Process(target=_run_pytest, args=(arguments, checkout, output))
    process.start()
    process.join()
    return process.exitcode, output.read_text(encoding="utf-8")


def _run_pytest(arguments: list[str], checkout: Path, output: Path) -> None:
    """In a fork of this process, so that the libraries, most of the time that a test takes, are there already."""
    # The processes that a test starts would run this script first, and import lift_trl from here.
    sys.modules["__main__"] = ModuleType("__main__")
    with output.open("w", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(checkout)
    assert not any(name.partition(".")[0] == "lift_trl" for name in sys.modules), "the fork would test this checkout"
    os.environ["PYTHONPATH"] = sys.path[0] = str(checkout)
    sys.exit(int(pytest.main(arguments)))


def main() -> None:
    """Reads the command line, plants, and prints the test that caught each bug or `SURVIVED`, and the sum last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="Plant only bugs whose names hold one of these words.")
    words = parser.parse_args().words
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    found = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "site", "__pycache__"))
        for mutation in chosen:
            started_s = time.monotonic()
            try:
                failed = failed_test(mutation, checkout)
                kind, line = ("caught", f"caught by {failed}") if failed else ("survived", "SURVIVED")
            except ValueError as error:
                kind, line = "not planted", f"NOT PLANTED: {error}"
            found[kind] += 1
            print(f"{mutation.name}: {line} ({time.monotonic() - started_s:.0f} s)", flush=True)
    print(", ".join(f"{kind}: {found[kind]}" for kind in ("caught", "survived", "not planted")))


if __name__ == "__main__":
    main()
