"""Each of PEFT's options: equal to the trained model wherever its file is read, or refused before training."""

from dataclasses import fields

import pytest
import torch
from diffusers import CogVideoXPipeline
from peft import LoraConfig, PeftModel, get_peft_model

from lift_trl.cli import main
from lift_trl.hub.lora.files import export_comfyui_lora, export_diffusers_lora, load_adapter, read_peft_adapter
from lift_trl.hub.lora.loading import export_merged_pipeline, find_lora, load_lora
from lift_trl.hub.lora.options import _WORKING, check_lora_options
from lift_trl.mini.checkpoints import build_tiny_pipeline


TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
WORKING = {
    "plain": {},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "random": {"init_lora_weights": False},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True, "rank_pattern": {"to_v": 2}, "alpha_pattern": {r".*1\.attn1\.to_q": 3}},
    "lora_bias": {"lora_bias": True},
    "exclude": {"exclude_modules": r".*blocks\.0\..*"},
    "layers": {"layers_to_transform": [1], "layers_pattern": "transformer_blocks"},
    "regex": {"target_modules": r".*attn1\.(to_q|to_v)"},
    "convolution": {"target_modules": ["patch_embed.proj", "to_q", "proj_out", "net.2"]},
}
REFUSED = {
    "init_lora_weights": ["pissa", "pissa_niter_4", "olora", "eva", "loftq", "corda", "mica", "lora_ga"],
    "bias": ["lora_only", "all"],
    "modules_to_save": [["proj_out"]],
    "target_parameters": [["ff.net.2.weight"]],
    "trainable_token_indices": [[0]],
    "use_qalora": [True],
    "layer_replication": [[(0, 2), (1, 2)]],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    build_tiny_pipeline(folder, seed=0)
    return folder


def predict(transformer) -> torch.Tensor:
    """A prediction on a clip that is not square, at a fixed input."""
    config, generator = transformer.config, torch.Generator().manual_seed(5)
    with torch.no_grad():
        return transformer.eval()(
            hidden_states=torch.randn(1, 3, config.in_channels, 4, 2, generator=generator),
            encoder_hidden_states=torch.randn(
                1, config.max_text_seq_length, config.text_embed_dim, generator=generator
            ),
            timestep=torch.tensor([300]),
            return_dict=False,
        )[0]


def trained(base, **options) -> PeftModel:
    """A LoRA of scale 4 whose every tensor has left its start."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": list(TARGETS), **options})
    check_lora_options(config)
    torch.manual_seed(3)
    model = get_peft_model(CogVideoXPipeline.from_pretrained(base).transformer.requires_grad_(False), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("name", WORKING)
def test_what_is_trained_is_what_is_read(tmp_path, base, name):
    model = trained(base, **WORKING[name])
    expected, plain = predict(model.get_base_model()), predict(CogVideoXPipeline.from_pretrained(base).transformer)
    assert (expected - plain).abs().max() > 1e-3
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    export_diffusers_lora(tmp_path, tmp_path)

    pipe = CogVideoXPipeline.from_pretrained(base)
    load_lora(pipe, find_lora(tmp_path), name="lift")
    assert torch.equal(predict(pipe.transformer), expected)

    again = trained(base, **WORKING[name])
    load_adapter(again, tmp_path, network="transformer")
    assert torch.equal(predict(again.get_base_model()), expected)
    with again.disable_adapter():
        assert torch.equal(predict(again.get_base_model()), plain)

    merged = export_merged_pipeline(tmp_path, str(base), tmp_path / "merged", dtype=torch.float32)
    merged_prediction = predict(CogVideoXPipeline.from_pretrained(merged).transformer)
    torch.testing.assert_close(merged_prediction, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("option", "value"), [(o, value) for o, values in REFUSED.items() for value in values])
def test_what_would_not_come_back_is_refused_before_training(option, value):
    config = LoraConfig(target_modules=list(TARGETS))
    setattr(config, option, value)  # some need libraries or data for being built at all
    with pytest.raises(ValueError, match=f"peft_config: {option}="):
        check_lora_options(config)


def test_every_option_of_peft_is_decided():
    """An option that a newer PEFT brings is refused until it is among those that are tested here."""
    names = {option.name for option in fields(LoraConfig)}
    assert _WORKING - names == set()
    undecided = names - _WORKING - {"init_lora_weights"}
    config = LoraConfig(target_modules=list(TARGETS))
    check_lora_options(config)
    for name in undecided:
        changed = LoraConfig(target_modules=list(TARGETS))
        setattr(changed, name, "something")
        with pytest.raises(ValueError, match=f"{name}='something' does not go with a diffusers LoRA"):
            check_lora_options(changed)


def test_layers_without_the_name_of_their_list_are_refused():
    with pytest.raises(ValueError, match="layers_to_transform needs layers_pattern"):
        check_lora_options(LoraConfig(target_modules=list(TARGETS), layers_to_transform=[1]))


@pytest.mark.parametrize(("options", "extra"), [({"use_dora": True}, 8), ({"lora_bias": True}, 8)])
def test_comfyui_is_given_nothing_that_it_half_reads(tmp_path, base, capsys, options, extra):
    trained(base, **options).save_pretrained(str(tmp_path), save_embedding_layers=False)
    with pytest.raises(ValueError, match=f"this one has {extra} tensors more .*--format merged"):
        export_comfyui_lora(tmp_path, tmp_path, module_name=str)
    assert main(["export", str(tmp_path), "--format", "comfyui", "--base", str(base)]) == 1
    assert "--format merged" in capsys.readouterr().err


def test_an_adapter_of_another_trainer_with_such_an_option_is_refused(tmp_path, base):
    config = LoraConfig(r=4, target_modules=list(TARGETS), modules_to_save=["proj_out"])
    get_peft_model(CogVideoXPipeline.from_pretrained(base).transformer, config).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"modules_to_save=\['proj_out'\] does not go with a diffusers LoRA"):
        read_peft_adapter(tmp_path)
