"""Weights of linear layers in 8 bits, by torchao. They stay frozen; what is trained beside them is float32."""

from collections.abc import Collection
from importlib.util import find_spec
from typing import Any, Literal, get_args


#: `int8`: whole numbers with a scale for each row; `float8`: 4 bits of exponent and 3 of mantissa, and such a scale.
Quantization = Literal["int8", "float8"]


def check_quantization(quantization: str) -> None:
    """
    Raises:
        ValueError: if there is no such `quantization`, or torchao is not installed.
    """
    if quantization not in get_args(Quantization):
        raise ValueError(
            f"quantization={quantization!r}; give one of {', '.join(get_args(Quantization))}, or leave it out."
        )
    if find_spec("torchao") is None:
        raise ValueError(f"quantization={quantization!r} needs torchao: pip install 'lift-trl[quantization]'.")


def torchao_type(quantization: Quantization) -> Any:
    """What `TorchAoConfig` of diffusers and of transformers takes, and `torchao.quantization.quantize_`."""
    check_quantization(quantization)
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    types: dict[str, Any] = {"int8": Int8WeightOnlyConfig, "float8": Float8WeightOnlyConfig}
    return types[quantization]()


def layers_within(model: Any, names: set[str]) -> set[str]:
    """Names of the modules of `model` that are, or are part of, one of `names` (single words of a path)."""
    return {path for path, _ in model.named_modules() if names.intersection(path.split("."))}


def quantize(model: Any, quantization: Quantization, *, whole: Collection[str]) -> None:
    """
    Quantises the linear layers of `model` where it is, as `from_pretrained` does when it loads them.

    Args:
        whole: names of layers that stay as they are.
    """
    quantization_type = torchao_type(quantization)
    from torch.nn import Linear
    from torchao.quantization import quantize_

    quantize_(model, quantization_type, lambda layer, name: isinstance(layer, Linear) and name not in whole)


def in_autocast(model: Any, quantization: Quantization | None) -> Any:
    """
    `model`, whose linear layers in 8 bits take what autocast computes in, as those do that are in none.

    torchao's (0.18) give back the type that they are given: for the float32 of a layer norm they copy their weight to
    float32, and all that follows them stays in it.
    """
    if quantization is not None:
        from torch.nn import Linear
        from torchao.utils import TorchAOBaseTensor

        for layer in model.modules():
            if isinstance(layer, Linear) and isinstance(layer.weight, TorchAOBaseTensor):
                layer.register_forward_pre_hook(_as_autocast)
    return model


def _as_autocast(layer: Any, inputs: tuple[Any, ...]) -> Any:
    import torch

    kind = inputs[0].device.type
    return inputs[0].to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else None
