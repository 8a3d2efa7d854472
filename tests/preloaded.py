"""What the server of tests/processes.py imports before it forks."""

import gc


gc.disable()  # while the libraries are imported, of which nothing is garbage

import transformers.models.idefics3.modeling_idefics3  # noqa: E402
import transformers.models.t5.modeling_t5  # noqa: E402, F401

import lift_trl.alignment.iterate  # noqa: E402
import lift_trl.alignment.reward_weighted_trainer  # noqa: E402
import lift_trl.critic.lift_critic  # noqa: E402
import lift_trl.recipe_parser  # noqa: E402
import lift_trl.report.commands  # noqa: E402
import lift_trl.ui.annotate.page  # noqa: E402
import lift_trl.ui.arena.page  # noqa: E402
import lift_trl.ui.compare.page  # noqa: E402, F401


gc.freeze()
gc.enable()
