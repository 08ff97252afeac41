"""Recurrent heads: InternLSTM's bidirectional LSTM, and the same with gated recurrent units.

Of the recurrent layers only the key frame's state is used, so each direction of the last one runs over its half of the
window alone: 4 + 4 steps of 14 where a window has 7 frames. The numbers are those of all steps.

On a CPU the steps are written out here. Next to torch's own layers that is faster: the input products of all steps are
one matrix product, the first step has no state to multiply, the gradients of the recurrent weights are summed over the
steps by one product, and frames that windows share can be multiplied once. On a GPU the steps are cuDNN's.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from heads.base import Head, Window
from registry import HEADS


class _LSTM(torch.autograd.Function):
    """One direction of a layer of `torch.nn.LSTM`, whose equations and order of gates these are, from a zero state."""

    @staticmethod
    def products(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """What the gates take from the inputs, ``(..., I)`` -> ``(..., 4 H)``; all biases are in it."""
        inward, _, bias, other_bias = weights
        return functional.linear(x, inward, bias + other_bias)

    @staticmethod
    def recurrent(weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The weights that are left for the steps."""
        return (weights[1],)

    @staticmethod
    def steps(products: Iterable[Tensor], weight: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """State, gates, cell and the cell's tanh after each step; each is ``(B, H)``, the gates ``(B, 4 H)``."""
        width = weight.shape[1]
        state = cell = None
        for product in products:
            gates = product.clone() if state is None else torch.addmm(product, state, weight.t())
            gates[:, : 2 * width].sigmoid_()
            gates[:, 2 * width : 3 * width].tanh_()
            gates[:, 3 * width :].sigmoid_()
            let_in, keep, new, let_out = gates.chunk(4, 1)
            cell = let_in * new if cell is None else torch.addcmul(let_in * new, keep, cell)
            bounded = cell.tanh()
            state = let_out * bounded
            yield state, gates, cell, bounded

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, products: Tensor, weight: Tensor) -> Tensor:
        """States ``(n, B, H)`` after each of the steps of ``products (n, B, 4 H)``."""
        steps = list(_LSTM.steps(products, weight))
        ctx.save_for_backward(weight, *(tensor for step in steps for tensor in step))
        return torch.stack([step[0] for step in steps])

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Back through the steps; what a step leaves to the one before it is added to that one's own gradient."""
        weight, *saved = ctx.saved_tensors
        states, gates, cells, bounded = saved[::4], saved[1::4], saved[2::4], saved[3::4]
        width = weight.shape[1]
        d_products = gradient.new_empty(len(states), *gates[0].shape)
        d_state, d_cell = gradient[-1], None
        for step in reversed(range(len(states))):
            let_in, keep, new, let_out = gates[step].chunk(4, 1)
            of_let_in, of_keep, of_new, of_let_out = d_products[step].split(width, 1)
            through = d_state * let_out * (1 - bounded[step].square())
            d_cell = through if d_cell is None else d_cell + through
            torch.mul(d_cell * new, let_in * (1 - let_in), out=of_let_in)
            torch.mul(d_cell * let_in, 1 - new.square(), out=of_new)
            torch.mul(d_state * bounded[step], let_out * (1 - let_out), out=of_let_out)
            if step == 0:
                of_keep.zero_()
                break
            torch.mul(d_cell * cells[step - 1], keep * (1 - keep), out=of_keep)
            d_cell = d_cell * keep
            d_state = torch.addmm(gradient[step - 1], d_products[step], weight)
        return d_products, _summed(d_products, states)


class _GRU(torch.autograd.Function):
    """One direction of a layer of `torch.nn.GRU`, whose equations and order of gates these are, from a zero state."""

    @staticmethod
    def products(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """What the gates take from the inputs, ``(..., I)`` -> ``(..., 3 H)``; the recurrent biases are not in it."""
        return functional.linear(x, weights[0], weights[2])

    @staticmethod
    def recurrent(weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The weights that are left for the steps."""
        return weights[1], weights[3]

    @staticmethod
    def steps(products: Iterable[Tensor], weight: Tensor, bias: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """State, the gates reset and update side by side, the new state's proposal, and what reset lets through."""
        width = weight.shape[1]
        state = None
        for product in products:
            carried = bias.expand_as(product) if state is None else torch.addmm(bias, state, weight.t())
            gates = (product[:, : 2 * width] + carried[:, : 2 * width]).sigmoid_()
            reset, update = gates.chunk(2, 1)
            through = carried[:, 2 * width :]
            new = torch.addcmul(product[:, 2 * width :], reset, through).tanh_()
            state = new - update * new if state is None else torch.lerp(new, state, update)
            yield state, gates, new, through

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, products: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """States ``(n, B, H)`` after each of the steps of ``products (n, B, 3 H)``."""
        steps = list(_GRU.steps(products, weight, bias))
        ctx.save_for_backward(weight, *(tensor for step in steps for tensor in step))
        return torch.stack([step[0] for step in steps])

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Back through the steps; what a step leaves to the one before it is added to that one's own gradient."""
        weight, *saved = ctx.saved_tensors
        states, gates, proposals, let_through = saved[::4], saved[1::4], saved[2::4], saved[3::4]
        width = weight.shape[1]
        d_products = gradient.new_empty(len(states), *gates[0].shape[:1], 3 * width)
        d_carried = torch.empty_like(d_products)
        d_state = gradient[-1]
        for step in reversed(range(len(states))):
            reset, update = gates[step].chunk(2, 1)
            new, through = proposals[step], let_through[step]
            of_reset, of_update, of_new = d_products[step].split(width, 1)
            torch.mul(d_state * (1 - update), 1 - new.square(), out=of_new)
            torch.mul(of_new * through, reset * (1 - reset), out=of_reset)
            before = states[step - 1] if step else torch.zeros_like(new)
            torch.mul(d_state * (before - new), update * (1 - update), out=of_update)
            d_carried[step] = d_products[step]
            d_carried[step, :, 2 * width :] *= reset
            if step:
                d_state = torch.addmm(d_state * update + gradient[step - 1], d_carried[step], weight)
        return d_products, _summed(d_carried, states), d_carried.sum((0, 1))


def _summed(gradients: Tensor, states: list[Tensor]) -> Tensor:
    """The gradient of the recurrent weights over all steps; the first step had no state before it."""
    if len(states) == 1:
        return gradients.new_zeros(gradients.shape[2], states[0].shape[1])
    return gradients[1:].flatten(0, 1).t() @ torch.cat(states[:-1])


class _Layers(nn.RNNBase):
    """The parameters of a bidirectional `torch.nn.LSTM` or `torch.nn.GRU`, and the key frame's state of its last layer.

    Args:
        mode: ``LSTM`` or ``GRU``.
        inputs: P, numbers a frame.
        hidden: H, width of each direction.
        layers: L.
    """

    def __init__(self, mode: str, inputs: int, hidden: int, layers: int) -> None:
        super().__init__(mode, inputs, hidden, layers, bidirectional=True)
        self.cell: Any = {"LSTM": _LSTM, "GRU": _GRU}[mode]

    def forward(self, x: Tensor) -> Tensor:
        """Return the key frame's state ``(B, 2 H)`` for frames ``(T, B, P)``."""
        return self._on_cudnn(x) if x.is_cuda else self._from(0, x)

    def first_products(self, x: Tensor) -> Tensor:
        """Return the first layer's input products of both directions side by side, ``(N, P)`` -> ``(N, G)``."""
        return torch.cat([self.cell.products(x, weights) for weights in self._weights(0)], 1)

    def judge(self, products: Tensor, rows: Tensor) -> Tensor:
        """Return the key frame's state ``(B, 2 H)`` for windows ``rows (B, T)`` of frames with ``products (N, G)``."""
        ahead, behind = products.chunk(2, 1)
        one, other = self._directions(0, rows.t())
        return self._from(1, self._layer(0, (ahead[at] for at in one), (behind[at] for at in other)))

    def _from(self, first: int, x: Tensor) -> Tensor:
        """Run the layers from a given one on."""
        for layer in range(first, self.num_layers):
            ahead, behind = self._directions(layer, x)
            one, other = self._weights(layer)
            x = self._layer(layer, self.cell.products(ahead, one), self.cell.products(behind, other))
        return x

    def _directions(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The frames ``x (T, ...)`` in the order of each direction of a layer; of the last one, up to the key frame."""
        if layer < self.num_layers - 1:
            return x, x.flip(0)
        centre = len(x) // 2
        return x[: centre + 1], x[centre:].flip(0)

    def _weights(self, layer: int) -> Sequence[Sequence[Tensor]]:
        return self.all_weights[2 * layer : 2 * layer + 2]

    def _layer(self, layer: int, ahead: Iterable[Tensor], behind: Iterable[Tensor]) -> Tensor:
        """One layer over the input products of its two directions, each in the order in which it runs."""
        weights = self._weights(layer)
        one, other = self._run(ahead, weights[0]), self._run(behind, weights[1])
        if layer == self.num_layers - 1:
            return torch.cat([one[-1], other[-1]], 1)
        return torch.cat([one, other.flip(0)], 2)

    def _run(self, products: Iterable[Tensor], weights: Sequence[Tensor]) -> Tensor:
        """States ``(n, B, H)`` after each step."""
        recurrent = self.cell.recurrent(weights)
        if not torch.is_grad_enabled():
            return torch.stack([step[0] for step in self.cell.steps(products, *recurrent)])
        together = products if isinstance(products, Tensor) else torch.stack(list(products))
        return self.cell.apply(together, *recurrent)

    def _on_cudnn(self, x: Tensor) -> Tensor:
        """Run all layers but the last one in one call, and each direction of the last one in a call of its own."""
        run: Any = torch.lstm if self.mode == "LSTM" else torch.gru

        def states(x: Tensor, part: list[Tensor], layers: int, both: bool) -> Tensor:
            zeros = x.new_zeros(layers * (1 + both), x.shape[1], self.hidden_size)
            start: Any = (zeros, zeros) if self.mode == "LSTM" else zeros
            return run(x, start, part, True, layers, 0.0, self.training, both, False)[0]

        *lower, one, other = self._parts()
        for part in lower:
            x = states(x, part, self.num_layers - 1, True)
        ahead, behind = self._directions(self.num_layers - 1, x)
        return torch.cat([states(ahead, one, 1, False)[-1], states(behind, other, 1, False)[-1]], 1)

    def _parts(self) -> list[list[Tensor]]:
        """The weights of each call of `_on_cudnn`."""
        lower: list[Tensor] = [weight for weights in self.all_weights[:-2] for weight in weights]
        one, other = ([*weights] for weights in self._weights(self.num_layers - 1))
        return [lower, one, other] if lower else [one, other]

    def flatten_parameters(self) -> None:
        """Lay the weights of each call into one piece of memory, as cuDNN wants them; `torch` does so for its one call.

        It is called by `torch` whenever the weights have moved, and does nothing on a CPU.
        """
        weights = list(self.parameters())
        if not all(weight.is_cuda and torch.backends.cudnn.is_acceptable(weight) for weight in weights):
            return
        if len({weight.data_ptr() for weight in weights}) < len(weights):  # some are one, and must stay so
            return
        from torch.backends.cudnn.rnn import get_cudnn_mode

        mode, layers = get_cudnn_mode(self.mode), self.num_layers
        width = self.input_size if layers == 1 else 2 * self.hidden_size
        *lower, one, other = self._parts()
        calls = [(part, self.input_size, layers - 1, True) for part in lower]
        calls += [(one, width, 1, False), (other, width, 1, False)]
        with torch.cuda.device_of(weights[0]), torch.no_grad():
            for part, inputs, count, both in calls:
                torch._cudnn_rnn_flatten_weight(part, 4, inputs, mode, self.hidden_size, 0, count, False, both)


class _Recurrent(Head):
    """Linear -> bidirectional recurrent layers -> the key frame's state -> multi-layer perceptron.

    Parameters carry the names of InternLSTM's published program, so that its checkpoints load as they are. There is no
    nonlinearity after ``fc1``.
    """

    mode: str
    cell_name: str

    def __init__(
        self,
        feature_dim: int,
        window: int = 7,
        projection: int = 1000,
        hidden: int = 1000,
        layers: int = 2,
        mlp: tuple[int, ...] = (1024, 512, 512),
        dropout: float = 0.5,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__(feature_dim, window)
        self.fc1 = nn.Linear(feature_dim, projection)
        self.add_module(self.cell_name, _Layers(self.mode, projection, hidden, layers))
        widths = (2 * hidden, *mlp, 2)
        for index in range(len(widths) - 1):
            self.add_module(f"last_layer{index + 1}", nn.Linear(widths[index], widths[index + 1]))
        self.depth = len(mlp)
        self.dropout = dropout
        self.input_dropout = input_dropout

    @property
    def _layers(self) -> _Layers:
        layers = self.get_submodule(self.cell_name)
        assert isinstance(layers, _Layers)
        return layers

    def forward(self, window: Window) -> Tensor:
        kept = functional.dropout1d(window.zeroed().transpose(1, 2), self.input_dropout, self.training)
        return self._classify(self._layers(self.fc1(kept.permute(2, 0, 1))))

    def encode(self, features: Tensor) -> Tensor:
        """Return the first layer's input products, ``(N, G)``; on a GPU, where they are cuDNN's, ``fc1``'s output."""
        projected = self.fc1(features)
        return projected if projected.is_cuda else self._layers.first_products(projected)

    def judge(self, encoded: Tensor, rows: Tensor, present: Tensor) -> Tensor:
        if encoded.is_cuda:
            return self._classify(self._layers(encoded[rows.t()]))
        return self._classify(self._layers.judge(encoded, rows))

    def _classify(self, x: Tensor) -> Tensor:
        for index in range(self.depth):
            x = functional.relu(self.get_submodule(f"last_layer{index + 1}")(x))
            x = functional.dropout(x, self.dropout, self.training)
        return self.get_submodule(f"last_layer{self.depth + 1}")(x)


@HEADS.register_module(name="lstm")
class LSTMHead(_Recurrent):
    """InternLSTM's head: 3200 -> 1000 -> BiLSTM -> 2 at its published size. Absent frames are zero vectors.

    Args:
        feature_dim: D, numbers a frame.
        window: T, frames a window.
        projection: width of the linear layer before the LSTM.
        hidden: width of each direction of the LSTM.
        layers: LSTM layers.
        mlp: widths of the layers between the key frame's state and the two logits.
        dropout: probability after each of those.
        input_dropout: probability of a feature to be left out, in all frames of a window at once (Gal and Ghahramani
            2016, "A theoretically grounded application of dropout in recurrent neural networks").
    """

    mode = "LSTM"
    cell_name = "lstm"


@HEADS.register_module(name="gru")
class GRUHead(_Recurrent):
    """`LSTMHead` with gated recurrent units in place of the LSTM; the same arguments."""

    mode = "GRU"
    cell_name = "gru"
