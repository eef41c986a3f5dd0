"""Override the backward pass of each operation: deconvnet, guided backpropagation, gradient.

The rules apply to the functions that a network calls, not to its modules. So `nn.ReLU`, `F.relu`, `x.relu_()` and a
module that is used twice are all covered, and the network is not modified.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpret.backprop.composite import RULES as RULES
from interpret.backprop.composite import Composite, OwnRule, PassByOwnRule, Rule, RuleName, check_rule
from interpret.backprop.decisions import Decisions, Named, node_of
from interpret.backprop.gates import (
    MARK,
    find_gate,
    is_pooled,
    keeps_role,
    mark,
    mark_product,
    marks,
    multiplies_matrices,
    role_of,
    squashed_role,
)
from interpret.backprop.neuron_windows import HOOKED
from interpret.backprop.recurrent import PassRecurrent, is_covered
from interpret.backprop.windowed_convolution import convolve
from interpret.network.checkpointing import plain_checkpoints
from interpret.network.layers import StopForward, tensors_in
from interpret.network.modes import constant_parameters
from interpret.network.operations import Backward, Operation, is_in_place, operation_name, operation_of
from interpret.network.pointwise import History, Pending, rectifier_slope, slope_of
from interpret.network.torch_internals import (
    base_of,
    is_bookkeeping,
    is_compiled,
    is_module_hook,
    is_view,
    next_node_number,
    node_number,
    result_count,
    without_torch_function,
)
from interpret.support.errors import InterpretError, warn

OVERLAPS = ("add", "overwrite")

Overlap = Literal["add", "overwrite"]


class UncoveredOperation(UserWarning):
    """The rule does not cover an operation on the signal; the plain gradient stands in for it.

    `interpret.register_operation` tells the rules what an operation does.

    Attributes:
        operations: (operation, layer) pairs, in the order in which they ran.
    """

    def __init__(self, rule: str, operations: Sequence[tuple[str, str]]) -> None:
        self.operations = list(operations)
        super().__init__(
            f"the {rule} rule does not cover {named_operations(operations)}: "
            "the plain gradient stands in for it there; interpret.register_operation tells what it does"
        )


def named_operations(operations: Sequence[tuple[str, str]]) -> str:
    """Return (operation, layer) pairs in words.

    >>> named_operations([("sin", "features.1"), ("cos", "")])
    "'sin' in features.1, 'cos' in the network itself"
    """
    return ", ".join(f"{operation!r} in {layer or 'the network itself'}" for operation, layer in operations)


class BackwardRule(TorchFunctionMode):
    """Override the backward pass of each operation that runs in the block, for `torch.autograd.grad`.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU())
    >>> image = torch.ones(1, 1, 3, 3, requires_grad=True)
    >>> with BackwardRule(network, "deconvnet"):
    ...     output = network(image)
    >>> (projection,) = torch.autograd.grad(output[0, 1, 0, 0], image)
    >>> torch.equal(projection[0], network[0].weight[1])
    True

    With R the signal at the output of an operation and f'(x) its derivative, the signal at its input is:

    | operation                                   | deconvnet        | guided          | gradient          |
    |---------------------------------------------|------------------|-----------------|-------------------|
    | rectifier                                   | max(R, 0)        | f'(x)·max(R, 0) | f'(x)·R           |
    | tanh, sigmoid, softmax, other clamps        | f'(x)·R          | f'(x)·R         | f'(x)·R           |
    | layer, group, instance, RMS, local response norm | R·its scale, held constant | the same | the true gradient |
    | batch norm (eval)                           | its affine map   | its affine map  | its affine map    |
    | product of two signals (squeeze-and-excitation) | the gate held constant | the same | the true gradient |
    | quotient of two signals                     | the divisor held constant | the same | the true gradient |
    | attention                                   | along the values | the same       | the true gradient |
    | grid_sample, deformable convolution         | places held constant | the same   | the true gradient |
    | LSTM, GRU, RNN                              | step by step, gates held constant | the same | the true gradient |
    | max-pool, maximum of several signals        | R to its switches | the same       | the same          |
    | convolution, sum, concatenation, average …  | the transpose    | the transpose   | the transpose     |

    Rectifiers are ReLU, ReLU6, leaky ReLU, PReLU, RReLU, ELU, SELU, CELU, SiLU, GELU, Mish, softplus, hardswish,
    threshold, a clamp whose lower bound is at least 0, the maximum with a constant of at least 0, and each of these
    written out, also in a `torch.autograd.Function`: a tensor times an elementwise function of it (x·sigmoid(x),
    x·(x > 0), x·relu6(x + 3)/6, x·(1 + erf(x/√2))/2), or divided by one, the maximum of x and c·x, a choice by the sign
    of x, (x + |x|)/2. A function counts as a rectifier if it keeps growing with x, at most as a square, and is flatter
    for −x; constant factors, by which it may grow faster than x, multiply the signal as they do elsewhere.

    The deconvnet rectifies the signal as the forward pass rectified the activations (Zeiler & Fergus 2014, section
    2.1), whatever the form of the rectifier. tanh and sigmoid have no rectified half, and the paper does not treat
    them: every rule multiplies the signal by their derivative. Guided backpropagation passes what is positive in both
    directions (Springenberg et al. 2015, section 3.4). Overlapping windows may share a switch, for which the paper
    gives no rule: "add" sums the signals of all windows (the adjoint of pooling), "overwrite" keeps the last one, even
    if it is zero, as `F.max_unpool2d` does.

    The gate of any other product, elementwise or of matrices, is one of its two factors: the one that is broadcast over
    the other; else the one that is the output of softmax or sigmoid; else of a mean or norm that kept its dimensions;
    else of tanh, a rectifier or a clamp. If none or both are, the product is not covered, but for q·(softmax(k)ᵀ·v),
    where the queries are held, as they are in other products then, and x·(softmax(a)·b)ᵀ, where the weights are
    (Jafari et al. 2024). So attention passes the signal along the values and holds its weights constant (Chefer et al.
    2021; Achtibat et al. 2024), also where it is written out as softmax(q·kᵀ)·v, mixes its weights between heads
    (talking heads), or has rectified queries and keys instead of a softmax. Kernels that the network computes from the
    image are gates too. Inside the block, parameters are constants, as is what the network itself detaches or computes
    under `torch.no_grad`. Checkpointing is disabled.

    Args:
        module: the network.
        rule: "deconvnet", "guided", "gradient", or an `interpret.Composite` of these and functions of your own.
        overlap: "add" or "overwrite", for max-pooling windows that overlap.
        strict: raise at the end of the block if an operation is not covered, instead of warning.

    Raises:
        InterpretError: an unknown rule or overlap, a compiled or scripted module (whose operations cannot be seen),
            or, with `strict`, an operation that the rule does not cover.

    Warns:
        UncoveredOperation: once, at the end of the block, naming each operation and layer. After `signals_from`, only
            those through which the signal passes.
    """

    def __init__(
        self, module: nn.Module, rule: Rule = "deconvnet", *, overlap: Overlap = "add", strict: bool = False
    ) -> None:
        check_rule(rule)
        if isinstance(rule, Composite):
            rule.check_layers(module)
        if overlap not in OVERLAPS:
            raise InterpretError(f"overlap must be one of {', '.join(OVERLAPS)}, not {overlap!r}")
        super().__init__()
        self.module = module
        self.rule = rule
        self.overlap = overlap
        self.strict = strict
        self.uncovered: dict[Named, list[int | None]] = {}
        """For each operation and layer, the numbers of the nodes of autograd's graph that its results came from; None
        for a result that is no tensor."""
        self._running: list[str] = []
        self._history = History()
        self._inside = History()
        """What runs without gradients, as the forward pass of a custom autograd function does."""
        self._pending: list[Pending] = []
        self._decisions = Decisions()
        self._decided: dict[Named, list[int | None]] = defaultdict(list)
        """The nodes of what was made of results that carry no signal, as `uncovered`."""
        self._undo = ExitStack()
        self._thread = 0
        self._start = 0
        self._starts: list[Any] | None = None

    def __enter__(self) -> BackwardRule:
        for name, layer in self.module.named_modules():
            if _hides_operations(layer):
                raise InterpretError(
                    f"{name or 'the network'} is a {type(layer).__name__} that hides its operations (compiled, "
                    "scripted or run in other threads): pass the plain module that it was made from"
                )
        self.uncovered, self._starts = {}, None
        self._running = []
        self._history, self._inside, self._pending = History(), History(), []
        self._decisions, self._decided = Decisions(), defaultdict(list)
        self._thread = threading.get_ident()  # modes and node numbers are per thread, hooks are not
        self._start = next_node_number()
        self._undo.enter_context(constant_parameters(self.module))
        self._undo.enter_context(plain_checkpoints())
        if self.rule != "gradient":
            for name, layer in self.module.named_modules():
                # first, so that they also run if another hook ends the forward pass
                entering = layer.register_forward_pre_hook(self._entering(name), prepend=True)
                leaving = layer.register_forward_hook(self._leaving, prepend=True, always_call=True)
                self._undo.callback(entering.remove)
                self._undo.callback(leaving.remove)
        super().__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        self._undo.close()
        self._history, self._inside, self._decisions = History(), History(), Decisions()
        if error is not None and not isinstance(error, StopForward):
            return
        for pending in self._pending:
            if not pending.in_rectifier:
                self._report_pending(pending)
        uncovered = self.uncovered_on_path()
        if uncovered and self.strict:
            raise InterpretError(
                f"the {self.rule} rule does not cover {named_operations(uncovered)}: tell what it does by "
                "interpret.register_operation, or leave strict out to let the plain gradient stand in for it"
            )
        if uncovered:
            warn(UncoveredOperation(str(self.rule), uncovered))

    def signals_from(self, outputs: Iterable[Tensor]) -> None:
        """Say from which outputs signals will start, so that only operations on their way are reported.

        What only a gate depends on, such as the product of queries and keys, is then not named.
        """
        self._starts = [output.grad_fn for output in outputs if output.grad_fn is not None]

    def uncovered_on_path(self) -> list[Named]:
        """Return the uncovered operations through which the signal passes, or that decide about where it passes.

        A comparison decides about what is multiplied by it or chosen by it, and not about the rest of the network.
        """
        if self._starts is None or not self.uncovered:
            return list(self.uncovered)
        passed, waiting = set(), list(self._starts)
        while waiting:
            node = waiting.pop()
            number = node_number(node)
            if number not in passed:
                passed.add(number)
                waiting += [parent for parent, _ in node.next_functions if parent is not None]
        return [
            one
            for one, nodes in self.uncovered.items()
            if any(node is None or node in passed for node in (*nodes, *self._decided[one]))
        ]

    def forget(self) -> None:
        """Discard the operations that were not covered, so that the end of the block does not warn of them."""
        self.uncovered.clear()
        self._pending.clear()

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(_layer: nn.Module, inputs: Any) -> None:
            if threading.get_ident() == self._thread:
                self.check(inputs)
                self._running.append(name)

        return enter

    def _leaving(self, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        if threading.get_ident() == self._thread:
            try:
                self.check(output)
            finally:
                self._running.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        decisions = self._decisions.behind((args, kwargs))
        result = self._call(func, args, kwargs)
        if decisions:
            for one, nodes in self._decisions.follow(func, args, kwargs, result, decisions).items():
                self._decided[one] += nodes
        return result

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that the network calls."""
        if not torch.is_grad_enabled():
            return self._call_inside(func, args, kwargs)
        signals = [value for value in tensors_in((args, kwargs)) if value.requires_grad]
        if not signals and not self._history.knows((args, kwargs)):
            return func(*args, **kwargs)
        if func is Tensor.register_hook and args[0].grad_fn is not None:
            args[0].grad_fn.metadata[HOOKED] = True  # autograd alone calls it
        if self.rule == "gradient" or operation_of(func).backward is Backward.QUERY:
            return self._run(func, args, kwargs)
        self.check(signals)
        result = self._pass(func, args, kwargs, signals)
        for value in tensors_in((args, kwargs, result)):
            mark(value, "seen")
        return result

    def _call_inside(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that a custom autograd function calls, or the network itself under `torch.no_grad`."""
        if torch.is_inference_mode_enabled():  # no signal passes, and what is written into a tensor is not counted
            return func(*args, **kwargs)
        derivations = self._inside.derivations(func, args, kwargs) if self.rule != "gradient" else []
        result = func(*args, **kwargs)
        self._inside.note(result, derivations)
        return result

    def _rule_of(self, func: Callable[..., Any] | None = None, backward: Backward | None = None) -> RuleName | OwnRule:
        """Return the rule of an operation where the network is now; of none, that of the layer."""
        if not isinstance(self.rule, Composite):
            return self.rule
        if func is None:
            return self.rule.rule_for(self._running)
        operation = operation_of(func)
        operation = operation if backward is None else replace(operation, backward=backward)
        return self.rule.rule_for(self._running, operation_name(func), operation)

    def _pass(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], signals: list[Tensor]) -> Any:
        """Run one operation with its backward pass overridden, alone or as the end of a written-out rectifier."""
        backward = operation_of(func).backward
        derivations = self._history.derivations(func, args, kwargs)
        pending = [one for one in self._history.pending((args, kwargs)) if not one.reported]
        for derivation in [] if backward in (Backward.RECTIFIER, Backward.CLAMP) else derivations:
            slope = rectifier_slope(func, derivation, bool(pending))
            if slope is not None:
                for one in pending:
                    one.in_rectifier = True
                written = args[0] if is_in_place(func) and args[0] is not derivation.source else None
                rule = self._rule_of(func, Backward.RECTIFIER)
                if rule in ("deconvnet", "guided"):
                    result = _Rectify.apply(
                        derivation.source, rule, func, args, kwargs, (derivation.function, slope), written
                    )
                elif callable(rule):
                    result = PassByOwnRule.apply(rule, func, args, kwargs, derivation.function, derivation.source)
                else:
                    result = self._run(func, args, kwargs)
                mark(result, "activation")
                self._history.note(result, derivations)
                return result
        result, covered = self._pass_by_itself(func, args, kwargs, signals)
        if derivations:
            if not covered:
                pending.append(self._wait(operation_name(func), result))
            self._history.note(result, derivations, pending)
            return result
        for one in pending:
            self._report_pending(one)
        if not covered:
            self._report(operation_name(func), result)
        return result

    def _pass_by_itself(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], signals: list[Tensor]
    ) -> tuple[Any, bool]:
        """Run one operation alone, and return its result and whether the rule covers it."""
        if not signals:  # a mask, for example
            return func(*args, **kwargs), True
        operation, operands = operation_of(func), _operands(args, kwargs)
        backward = operation.backward
        # whether the input alone carries the signal, and not a weight or a bound too
        plain = len(signals) == 1 and bool(operands) and operands[0] is signals[0]
        rectifies = (
            (plain and backward is Backward.RECTIFIER)
            or (plain and backward is Backward.CLAMP and _lower_bound(func, args, kwargs) >= 0)
            or (backward is Backward.MAXIMUM and _is_rectifying_maximum(operands))
        )
        rule = self._rule_of(func, Backward.RECTIFIER if rectifies else None)
        if callable(rule):
            inputs = {id(signal): signal for signal in signals}.values()
            return PassByOwnRule.apply(rule, func, args, kwargs, None, *inputs), True
        if rule == "gradient":
            return self._run(func, args, kwargs), True
        if rectifies:
            result = _Rectify.apply(signals[0], rule, func, args, kwargs)
            mark(result, "activation")
            return result, True
        if plain and backward is Backward.NORMALISATION:
            return _normalise_by_constants(signals[0], func, args, kwargs), True
        if backward in (Backward.PRODUCT, Backward.BILINEAR) and len(signals) > 1:
            gate = find_gate(func, args, kwargs, signals)
            result = self._hold(func, args, kwargs, lambda _, value: value is gate)
            if gate is not None:
                mark_product(result, gate, signals, multiplies_matrices(func))
            return result, gate is not None
        if backward is Backward.QUOTIENT:
            return self._hold_divisor(func, args, kwargs, signals)
        if backward is Backward.ATTENTION:
            return self._hold(func, args, kwargs, lambda place, _: place not in (2, "value")), True
        if backward is Backward.SAMPLING:
            carries = any(one is signals[0] for one in operands[:1])
            return self._hold(func, args, kwargs, lambda place, _: place not in (0, "input")), carries
        if backward is Backward.RECURRENT and plain and len(signals) == 1 and is_covered(args):
            return PassRecurrent.apply(signals[0], func, args, kwargs, partial(_rectify, rule)), True
        result = self._run(func, args, kwargs)
        if plain and backward in (Backward.SLOPE, Backward.CLAMP):
            mark(result, squashed_role(func))
            return result, True
        if is_pooled(operation, args, kwargs):
            mark(result, "pooled")
        if backward is Backward.LINEAR and all(role_of(signal) == "context" for signal in signals):
            mark(result, "context")
        if keeps_role(operation, role_of(signals[0])) and (
            len(signals) == 1 or backward is Backward.SHAPE
        ):  # of `expand_as`, two
            for part in tensors_in(result):
                mark(part, role_of(signals[0]))
        if backward is Backward.CAST:
            # a cast to integers is not covered; a constant that is cast to the signal's type is
            return result, not isinstance(result, Tensor) or not operands[0].requires_grad or result.requires_grad
        return result, (
            backward in (Backward.MAX_POOL, Backward.PRODUCT)
            or operation.is_linear
            or (backward is Backward.MAXIMUM and _is_choice(operands))
        )

    def _run(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation whose backward pass is its gradient."""
        if operation_of(func).backward is Backward.MAX_POOL:
            return self._pool(func, args, kwargs)
        return convolve(func, args, kwargs) if func is torch.conv2d else func(*args, **kwargs)

    def _pool(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        if self.overlap == "add":
            return func(*args, **kwargs)
        name, x = operation_name(func), _operands(args, kwargs)[0]
        kwargs.pop("input", None)
        with_switches = kwargs.pop("return_indices", False) or name.endswith("_with_indices")
        values, switches = _OverwritingPool.apply(x, name.removesuffix("_with_indices"), args[1:], kwargs)
        return (values, switches) if with_switches else values

    def _hold(
        self, func: Callable[..., Any], args: Any, kwargs: Any, is_held: Callable[[int | str, Tensor], bool]
    ) -> Any:
        """Run an operation with some of its operands, chosen by place and value, held constant."""

        def constant(place: int | str, value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [constant(place, one) for one in value]  # the operands of an einsum
            return value.detach() if isinstance(value, Tensor) and is_held(place, value) else value

        named = {name: constant(name, value) for name, value in kwargs.items()}
        return self._run(func, tuple(constant(*one) for one in enumerate(args)), named)

    def _hold_divisor(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], signals: list[Tensor]
    ) -> tuple[Any, bool]:
        """Divide, with the divisor held constant."""
        dividend, divisor = _operands(args, kwargs)
        if dividend is not signals[0] or kwargs.get("rounding_mode"):
            return func(*args, **kwargs), False
        named = {key: value for key, value in kwargs.items() if key not in ("input", "other")}
        role = role_of(dividend)  # before it is written into
        result = func(dividend, divisor.detach() if isinstance(divisor, Tensor) else divisor, *args[2:], **named)
        mark(result, role)  # also of attention weights that are divided by their sum
        return result, True

    def check(self, values: Any) -> None:
        """Report operations that made these tensors without the mode seeing them: custom autograd, scripted functions.

        The rule itself checks the inputs of each operation, and the inputs and outputs of each layer. Call this for
        an output of the network that is not the output of a layer.
        """
        if self.rule == "gradient":
            return
        with without_torch_function():  # around a layer, the mode would see each look at a tensor
            for value in tensors_in(values):
                self._check_makers(value)

    def _check_makers(self, value: Tensor) -> None:
        waiting = [_maker(value)]
        while waiting:
            node = waiting.pop()
            if node is None or MARK in node.metadata or node_number(node) < self._start:
                continue
            node.metadata[MARK] = "seen"
            if is_bookkeeping(node):
                continue
            if not is_module_hook(node) and self._rule_of() != "gradient" and not self._rectifies(node, value):
                self._report(type(node).__name__.removesuffix("Backward"), node)
            waiting += [parent for parent, _ in node.next_functions]

    def _rectifies(self, node: Any, value: Tensor) -> bool:
        """Return whether a custom autograd function, which made a value, is a rectifier, and let the rule pass it."""
        rule = self._rule_of()
        if isinstance(self.rule, Composite):
            name = type(node).__name__.removesuffix("Backward")
            rule = self.rule.rule_for(self._running, name, Operation(Backward.RECTIFIER))
        places = [place for place, (parent, _) in enumerate(node.next_functions) if parent is not None]
        alone = value.grad_fn is node and len(places) == 1 and result_count(node) == 1
        if not alone or rule not in ("deconvnet", "guided"):
            return False
        slopes = [rectifier_slope(torch.relu, one, pending=True) for one in self._inside.derivations_of(value)]
        slope = next((one for one in slopes if one is not None), None)
        if slope is None:
            return False

        def rectify(found: tuple[Any, ...], signals: tuple[Tensor, ...]) -> tuple[Any, ...]:
            (signal,), (place,) = signals, places
            passed = signal.clamp(min=0) * slope if rule == "deconvnet" else found[place].where(signal > 0, 0)
            return *found[:place], passed, *found[place + 1 :]

        node.register_hook(rectify)
        node.metadata[MARK] = "activation"
        return True

    def _wait(self, operation: str, result: Any) -> Pending:
        """Note an operation that is not covered, to be reported unless it turns out to be a part of a rectifier."""
        layer = self._running[-1] if self._running else ""
        self._pending.append(Pending(operation, layer, self._nodes_of((operation, layer), result)))
        return self._pending[-1]

    def _report_pending(self, pending: Pending) -> None:
        if not pending.reported:
            pending.reported = True
            self.uncovered.setdefault((pending.operation, pending.layer), []).extend(pending.nodes)

    def _report(self, operation: str, result: Any) -> None:
        """Note an operation that is not covered, with what it made: a tensor, or the node of one."""
        layer = self._running[-1] if self._running else ""
        self.uncovered.setdefault((operation, layer), []).extend(self._nodes_of((operation, layer), result))

    def _nodes_of(self, named: Named, result: Any) -> list[int | None]:
        """Return the numbers of the nodes that made a result, and follow its parts that carry no signal."""
        parts = list(tensors_in(result))
        self._decisions.note((part for part in parts if not part.requires_grad), {named})
        return [node_of(part) for part in parts if part.requires_grad] if parts else [node_of(result)]


def _rectify(rule: str, x: Tensor) -> Tensor:
    result: Tensor = _Rectify.apply(x, rule, torch.relu, (x,), {})
    return result


class _Rectify(torch.autograd.Function):
    """A rectifier that runs as written, and rectifies the signal in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rule: str,
        func: Callable[..., Tensor],
        args: Any,
        kwargs: Any,
        whole: tuple[Callable[[Tensor], Tensor], Tensor] | None = None,
        written: Tensor | None = None,
    ) -> Tensor:
        """Run `func`, which may be the last operation of a written-out rectifier of x.

        Then `whole` is that rectifier and its slope at large values, and `written` the operand that it writes into.
        """
        slope = None
        if whole is not None:
            slope = slope_of(whole[0], x) if rule == "guided" else whole[1]
            y = func(*args, **kwargs)
        elif rule == "guided":
            y, slope = _with_slope(x, func, args, kwargs)
        else:
            y = func(*args, **kwargs)
        ctx.save_for_backward(slope)
        if y is x or y is written:  # in place
            ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        signal = signals[0].clamp(min=0)
        (slope,) = ctx.saved_tensors
        if slope is not None:
            signal = signal * slope
        return signal, None, None, None, None, None, None


class _HoldConstant(torch.autograd.Function):
    """An operation that runs as written, and whose backward pass is that of scale·x + constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, func: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        ctx.save_for_backward(scale)
        return func(*args, **kwargs)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        (scale,) = ctx.saved_tensors
        return signals[0] * scale, None, None, None, None


class _OverwritingPool(torch.autograd.Function):
    """Max-pooling in whose backward pass a shared switch keeps the signal of the last window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
        values, switches = getattr(F, f"{kind}_with_indices")(x, *args, **kwargs)
        ctx.save_for_backward(switches)
        ctx.mark_non_differentiable(switches)
        ctx.size = x.shape
        ctx.spatial = int(kind[-2])  # max_pool2d: the last two
        return values, switches

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        signal, switches = (value.flatten(-ctx.spatial) for value in (signals[0], *ctx.saved_tensors))
        # computed here, since with F.max_unpool2d it depends on threads which window is the last
        windows = torch.arange(signal.shape[-1], device=signal.device).expand_as(switches)
        below = signal.new_zeros(*ctx.size[: -ctx.spatial], math.prod(ctx.size[-ctx.spatial :]))
        last = torch.zeros_like(below, dtype=torch.int64).scatter_reduce(-1, switches, windows, "amax")
        kept = signal.where(last.gather(-1, switches) == windows, 0)
        return below.scatter_add(-1, switches, kept).reshape(ctx.size), None, None, None


def _maker(value: Tensor) -> Any:
    """Return the node of autograd's graph that made a tensor; of a view whose node autograd may rebuild, its base's."""
    node, base = value.grad_fn, base_of(value)
    if base is None or marks(value) or isinstance(node, torch.autograd.function.BackwardCFunction):
        return node
    return base.grad_fn


def _hides_operations(layer: nn.Module) -> bool:
    return isinstance(layer, (torch.jit.ScriptModule, nn.DataParallel)) or is_compiled(layer)


def _carries_signal(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _operands(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the first two arguments of an operation, named or not."""
    return [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)][:2]


def _lower_bound(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    """Return the lower bound of a clamp; −inf if it has none."""
    name = operation_name(func)
    if name == "clamp_max":
        return -torch.inf
    bound = kwargs.get("min", kwargs.get("min_val", args[1] if len(args) > 1 else None))
    if bound is None:
        return -1.0 if name == "hardtanh" else -torch.inf
    return float(bound.min()) if isinstance(bound, Tensor) else float(bound)


def _is_choice(operands: Sequence[Any]) -> bool:
    """Return whether a maximum is over positions of one signal, or over several signals, as max-pooling is."""
    return all(map(_carries_signal, (value for value in operands if isinstance(value, Tensor))))


def _is_rectifying_maximum(operands: Sequence[Any]) -> bool:
    """Return whether this is max(x, constant) with a constant of at least 0."""
    constants = [value for value in operands if isinstance(value, Tensor) and not value.requires_grad]
    return len(constants) == 1 and bool((constants[0] >= 0).all())


def _with_slope(
    x: Tensor, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Return func's value at x, which is x itself for an in-place func, and its derivative there."""
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        inner = point.clone()
        y = func(
            *(inner if value is x else value for value in args),
            **{key: inner if value is x else value for key, value in kwargs.items()},
        )
        (slope,) = torch.autograd.grad(y, point, torch.ones_like(y))
    return (x.copy_(y.detach()) if y is inner else y.detach()), slope


def _normalise_by_constants(x: Tensor, func: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
    """Normalise as written; the backward pass multiplies by the scale that the statistics give."""
    with torch.no_grad():
        scale = _SCALES[func](*args, **kwargs)
    if scale is None:
        return func(*args, **kwargs)
    y: Tensor = _HoldConstant.apply(x, scale, func, args, kwargs)
    # autograd would refuse a later operation that writes into a view, which instance_norm returns
    return y.clone() if is_view(y) else y


def _channelwise(weight: Tensor | None, x: Tensor) -> Tensor | float:
    """Shape a per-channel weight so that it multiplies x of shape [B, C, …]."""
    return 1.0 if weight is None else weight.reshape(1, -1, *[1] * (x.dim() - 2))


def _local_response_scale(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    squares = F.pad(input.square().unsqueeze(1), [0, 0] * (input.dim() - 2) + [size // 2, (size - 1) // 2])
    mean = squares.unfold(2, size, 1).mean(-1).squeeze(1)
    return (mean * alpha + k).pow(-beta)


def _layer_norm_scale(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: object = None,
    eps: float = 1e-5,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    scale = (input.var(dims, correction=0, keepdim=True) + eps).rsqrt()
    return scale if weight is None else scale * weight


def _rms_norm_scale(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    scale = (input.square().mean(dims, keepdim=True) + (torch.finfo(input.dtype).eps if eps is None else eps)).rsqrt()
    return scale if weight is None else scale * weight


def _unit_norm_scale(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: object = None) -> Tensor:
    return 1 / input.norm(p, dim, keepdim=True).clamp_min(eps)


def _group_norm_scale(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: object = None, eps: float = 1e-5
) -> Tensor:
    variance = input.reshape(len(input), num_groups, -1).var(2, correction=0)
    scale = (variance + eps).rsqrt().repeat_interleave(input.shape[1] // num_groups, dim=1)
    return scale.reshape(*input.shape[:2], *[1] * (input.dim() - 2)) * _channelwise(weight, input)


def _instance_norm_scale(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: object = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if not use_input_stats:
        return None  # its statistics are constants
    variance = input.var(tuple(range(2, input.dim())), correction=0, keepdim=True)
    return (variance + eps).rsqrt() * _channelwise(weight, input)


def _batch_norm_scale(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: object = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if not training and running_var is not None:
        return None  # an affine map
    variance = input.var((0, *range(2, input.dim())), correction=0, keepdim=True)
    return (variance + eps).rsqrt() * _channelwise(weight, input)


_SCALES: dict[Callable[..., Tensor], Callable[..., Tensor | None]] = {
    F.local_response_norm: _local_response_scale,
    F.layer_norm: _layer_norm_scale,
    F.normalize: _unit_norm_scale,
    F.rms_norm: _rms_norm_scale,
    F.group_norm: _group_norm_scale,
    F.instance_norm: _instance_norm_scale,
    F.batch_norm: _batch_norm_scale,
}
