"""Bottleneck adapters: after both sublayers, after the layer, or beside the feed-forward."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from .errors import checked
from .places import Layer, Placed

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
    "swish": nn.functional.silu,
}


class BottleneckAdapter(nn.Module):
    """x -> W_up f(W_down x + b_down) + b_up, for x of shape (B, L, d) (Houlsby et al. 2019)."""

    def __init__(self, width: int, bottleneck: int, activation: str):
        super().__init__()
        self.down = nn.Linear(width, bottleneck)  # weight (m, d)
        self.up = nn.Linear(bottleneck, width)  # weight (d, m)
        self.activation = ACTIVATIONS[activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """What is added to the residual; the same shape out as in."""
        return self.up(self.activation(self.down(hidden)))


@checked
class Houlsby:
    """Two adapters per layer, after the attention output and after the feed-forward output.

    h + A(h), before the residual connection and LayerNorm. The configuration of Wu & Chen (2022):
    exact GELU, no LayerNorm of their own, all encoder weights frozen. Houlsby et al. (2019) also
    train the encoder's LayerNorms; here they are not.

    Attributes:
        bottleneck: units m of each adapter.
        activation: `gelu`, `relu` or `swish`.
        init_std: standard deviation of both matrices; biases start at 0. It must not be 0 for
            the up-projection, or rewinding to the initial values would mean nothing (A8).
    """

    bottleneck: Annotated[int, Field(ge=1, le=8192)] = 64
    activation: Literal["gelu", "relu", "swish"] = "gelu"
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02

    def place(self, layer: Layer) -> Iterator[Placed]:
        """One adapter on each sublayer's end."""
        for position in ("attention", "ffn"):
            adapter = BottleneckAdapter(layer.width, self.bottleneck, self.activation)
            end = layer.part(f"{position}_end")
            # A partial, unlike a closure, follows its adapter through copy.deepcopy.
            hook = end.register_forward_hook(partial(_add, adapter))
            yield Placed(position, adapter, [hook])


def _add(adapter: nn.Module, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return output + adapter(output)


@checked
class Pfeiffer:
    """One adapter per layer, after the feed-forward's LayerNorm (Pfeiffer et al. 2021).

    LN(x + A(LN(x))), with x the sum of feed-forward output and its residual, and LN the encoder's
    own LayerNorm, which so is applied twice.

    Attributes:
        bottleneck, activation, init_std: as for `Houlsby`.
    """

    bottleneck: Annotated[int, Field(ge=1, le=8192)] = 64
    activation: Literal["gelu", "relu", "swish"] = "relu"
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02

    def place(self, layer: Layer) -> Iterator[Placed]:
        """One adapter on the layer's last LayerNorm."""
        adapter = BottleneckAdapter(layer.width, self.bottleneck, self.activation)
        norm = layer.part("ffn_norm")
        yield Placed("ffn", adapter, [norm.register_forward_hook(partial(add_and_norm, adapter))])


def add_and_norm(adapter: nn.Module, norm: nn.Module, args: tuple, output: Tensor) -> Tensor:
    """LN(x + A(LN(x))): a hook on LN, whose input is x."""
    return norm.forward(args[0] + adapter(output))  # `forward`, so that no hook runs again


@checked
class Parallel:
    """One adapter per layer beside the feed-forward: FFN(x) + scale * A(x) (He et al. 2022).

    Attributes:
        bottleneck, activation, init_std: as for `Houlsby`.
        scale: factor on the adapter's output.
    """

    bottleneck: Annotated[int, Field(ge=1, le=8192)] = 64
    activation: Literal["gelu", "relu", "swish"] = "relu"
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02
    scale: Annotated[float, Field(gt=0, le=100)] = 4.0

    def place(self, layer: Layer) -> Iterator[Placed]:
        """One adapter that reads the feed-forward's input and adds to its output."""
        beside = Beside(
            BottleneckAdapter(layer.width, self.bottleneck, self.activation), self.scale
        )
        into = layer.part("ffn_in").register_forward_pre_hook(beside.read)
        end = layer.part("ffn_end").register_forward_hook(beside.add)
        yield Placed("ffn", beside.adapter, [into, end])


class Beside:
    """Carries an adapter's output from where the feed-forward begins to where it ends."""

    def __init__(self, adapter: nn.Module, scale: float):
        self.adapter, self.scale, self.change = adapter, scale, None

    def read(self, module: nn.Module, args: tuple) -> None:
        """Compute from what goes into the feed-forward."""
        self.change = self.adapter(args[0])

    def add(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """Add to what comes out of it."""
        change, self.change = self.change, None
        return output + self.scale * change
