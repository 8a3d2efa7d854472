"""What a server imports before it forks (tests/processes.py)."""

from lift_trl.importing import importing


with importing():
    import transformers.models.idefics3.modeling_idefics3
    import transformers.models.t5.modeling_t5  # noqa: F401

    import lift_trl.alignment.iterate
    import lift_trl.alignment.reward_weighted_trainer
    import lift_trl.critic.lift_critic
    import lift_trl.recipe_parser
    import lift_trl.report.commands
    import lift_trl.ui.annotate.page
    import lift_trl.ui.arena.page
    import lift_trl.ui.compare.page  # noqa: F401
