"""What is pushed names a base that others can load; a folder of this machine is refused, or given its name on the Hub."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXPipeline
from huggingface_hub import ModelCard, hf_hub_download
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from lift_trl.cli import main
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import CriticSettings, find_revision
from lift_trl.hub.lora.files import export_diffusers_lora
from lift_trl.hub.push import push
from lift_trl.mini.checkpoints import build_tiny_pipeline
from tests.critic.tiny_models import build_vlm
from tests.hub.fixtures import LocalHub


@pytest.fixture
def critic(tmp_path: Path) -> Path:
    """A LoRA on a model that is a folder, as `LiFTCriticTrainer` leaves it."""
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    folder = tmp_path / "critic"
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=r".*text_model\..*q_proj", init_lora_weights=False)
    get_peft_model(AutoModelForImageTextToText.from_pretrained(tmp_path / "vlm"), config).save_pretrained(str(folder))
    for file in (tmp_path / "vlm").iterdir():
        if file.suffix != ".safetensors" and file.name != "config.json":
            (folder / file.name).write_bytes(file.read_bytes())
    CriticSettings(num_frames=2).save(folder, parents={str(tmp_path / "vlm"): find_revision(str(tmp_path / "vlm"))})
    return folder


def upload(hub: LocalHub, repo: str, folder: Path) -> str:
    hub.api().create_repo(repo, exist_ok=True)
    hub.api().upload_folder(repo_id=repo, folder_path=folder)
    return repo


def test_a_critic_of_a_folder_is_refused_or_named(critic: Path, hub: LocalHub, capsys):
    with pytest.raises(ValueError, match=r"vlm' is a folder of this machine.*--base-model user/name"):
        push(critic, "dev/critic-local")
    with pytest.raises(ValueError, match="'dev/not-there' is no model on the Hub"):
        push(critic, "dev/critic-local", base_model="dev/not-there")
    assert not hub.api().repo_exists("dev/critic-local")
    base = upload(hub, "dev/base-vlm", critic.parent / "vlm")
    assert main(["push", str(critic), "dev/critic-named", "--base-model", base]) == 0
    assert "/dev/critic-named (model, commit " in capsys.readouterr().out
    config = json.loads(Path(hf_hub_download("dev/critic-named", "adapter_config.json")).read_text())
    assert config["base_model_name_or_path"] == base
    assert ModelCard.load("dev/critic-named").data.base_model == base
    kept = json.loads((critic / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert kept == str(critic.parent / "vlm")  # here nothing has changed
    (critic.parent / "vlm").rename(critic.parent / "gone")
    tuned, untuned = (
        dict(LiFTCritic.from_pretrained(name).model.named_parameters()) for name in ("dev/critic-named", base)
    )
    assert any(not torch.equal(tuned[name], weight) for name, weight in untuned.items())


def test_a_lora_of_a_folder_is_refused_or_named(tmp_path: Path, hub: LocalHub):
    build_tiny_pipeline(tmp_path / "video")
    folder = tmp_path / "lora"
    config = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    model = get_peft_model(CogVideoXPipeline.from_pretrained(tmp_path / "video").transformer, config)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "video")
    model.save_pretrained(str(folder), save_embedding_layers=False)
    export_diffusers_lora(folder, folder)
    snippet = f'pipe = DiffusionPipeline.from_pretrained("{tmp_path / "video"}", dtype=dtype)'
    (folder / "README.md").write_text(f"---\nlicense: other\n---\n# lora\n\n```python\n{snippet}\n```\n")
    with pytest.raises(ValueError, match=r"video' is a folder of this machine"):
        push(folder, "dev/lora-local")
    base = upload(hub, "dev/base-video", tmp_path / "video")
    push(folder, "dev/lora-named", base_model=base)
    card = ModelCard.load("dev/lora-named")
    assert card.data.base_model == base and f'DiffusionPipeline.from_pretrained("{base}"' in card.text
    assert str(tmp_path) not in card.content
    # A whole transformer has no adapter_config.json: its card's snippet names the base.
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=r"video' is a folder of this machine"):
        push(folder, "dev/lora-local")


def test_a_base_is_of_critics_and_loras_only(tmp_path: Path, hub: LocalHub):
    (tmp_path / "app.py").write_text("")
    (tmp_path / "README.md").write_text("---\nsdk: gradio\n---\n")
    assert main(["push", str(tmp_path), "dev/space", "--base-model", "dev/x"]) == 1
