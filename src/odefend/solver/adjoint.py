"""Gradients by the continuous adjoint equation, integrated backwards in time (Chen et al. 2018, arXiv 1806.07366).

With a(t) the gradient with respect to y(t), da/dt = -a df/dy; the gradient with respect to a parameter is the integral
of a df/dparameter from t0 to t1. The backward integration runs in s = -t (in s = t where the solve itself ran
backwards), so that s increases; `direction` is -dt/ds, 1 or -1 for each sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from odefend.errors import InvalidInput
from odefend.solver.control import Norm, rms
from odefend.solver.integrate import Listener
from odefend.solver.problem import Plan, Problem
from odefend.solver.rows import Rows
from odefend.solver.solution import Solution, Status
from odefend.solver.step import Attempt, VectorField, moved, per_sample
from odefend.tensors import Index, Mask, State, Times

Segment = Callable[[Index, State, State, Times, Times], State]
"""The adjoint at an earlier time of the solve (the last argument), from the state and the adjoint at a later one; for
the samples at an index. NaN where its integration failed."""


@dataclass
class Adjoint:
    """A solve whose gradients come from the adjoint equation, integrated at the problem's tolerances for it.

    `shared` are the tensors that all samples depend on. `published` carries their adjoints in the state, so that they
    take part in the error norm, as torchdiffeq does; it needs a problem of one sample without args.
    """

    problem: Problem
    plan: Plan
    shared: tuple[Tensor, ...]
    published: bool

    def solve(self) -> Solution:
        """The solution; its `y` and `path` are differentiable, once."""
        found: list[Solution] = []
        y, path = _Solve.apply(self, found.append, self.problem.y0, *self.problem.args, *self.shared)
        return replace(found[0], y=y, path=path)

    def back(
        self,
        f: VectorField,
        z: State,
        rows: Index,
        start: Times,
        stop: Times,
        norm: Norm,
        *,
        clip: bool | None = None,
        listener: Listener | None = None,
    ) -> State:
        """Where the solution of dz/ds = f(s, z, direction, *args) goes from `start` to `stop`, both times t; NaN where
        it does not get there."""
        problem, sign = self.problem, self.direction[rows]
        rtol, atol = problem.back_rtol[rows], problem.back_atol[rows]
        back = Problem(
            f,
            z,
            -sign * start,
            -sign * stop,
            rtol,
            atol,
            rtol,
            atol,
            problem.times[rows, :0],
            (sign, *(arg[rows] for arg in problem.args)),
        )
        plan = replace(self.plan, norm=norm, log=False, clip=self.plan.clip if clip is None else clip)
        found = back.integrate(plan, listener)
        return torch.where(per_sample(found.status, z) == Status.SUCCESS, found.y, torch.nan)

    @property
    def direction(self) -> Times:
        """1 for samples that run forwards in time, -1 for those that run backwards."""
        return torch.where(self.problem.stop < self.problem.start, -1.0, 1.0).double()


def check_nothing_hidden(f: VectorField, t: Times, y: State, args: Sequence[Tensor], known: Sequence[Tensor]) -> None:
    """Raise InvalidInput if f depends on a tensor that requires a gradient besides y, args and the known ones;
    evaluates f once."""
    with torch.enable_grad():
        slope = f(t.to(y.dtype), y.detach(), *(arg.detach() for arg in args))
    todo, seen, fine = [slope.grad_fn], set(), {id(tensor) for tensor in known}
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in fine:
            raise InvalidInput(
                f"f: expected an nn.Module with all its parameters registered, which gradient='adjoint' has to know, got "
                f"a {type(f).__name__} that uses another tensor of shape {tuple(leaf.shape)} which requires a gradient. "
                "Register it, give it as one of args if it has a row for each sample, or choose another gradient mode."
            )
        seen.add(node)
        todo += [following for following, _ in node.next_functions]


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adjoint: Adjoint, tell: Callable[[Solution], None], *_: Tensor) -> tuple[Tensor, Tensor]:
        found = adjoint.problem.integrate(adjoint.plan)
        tell(found)
        device = found.y.device.type
        # Not the solution itself: its y leads back to this node, and neither would ever be freed.
        ctx.status = found.status
        ctx.adjoint, ctx.autocast = adjoint, (torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(found.y, found.path)
        return found.y, found.path

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # type: ignore[override]
        adjoint, (y, path) = ctx.adjoint, ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        rows = (ctx.status == Status.SUCCESS).nonzero()[:, 0]
        with torch.autocast(y.device.type, *ctx.autocast):
            way = _Whole(adjoint, wanted) if adjoint.published else _EachSample(adjoint, wanted)
            return None, None, _walk_back(adjoint.problem, rows, way.segment, y, path, *grads), *way.gradients()


def _walk_back(
    problem: Problem, rows: Index, segment: Segment, y: Tensor, path: Tensor, grad: Tensor, path_grad: Tensor
) -> Tensor:
    """The gradient with respect to y0 from those with respect to the solution and the states on the way to it; 0 but
    for the `rows` whose solve succeeded."""
    if not len(rows):
        return torch.zeros_like(grad)
    state, a, at = y[rows], grad[rows], problem.stop[rows]
    for k in reversed(range(problem.times.shape[1])):
        a = segment(rows, state, a, at, problem.times[rows, k]) + path_grad[rows, k]
        state, at = path[rows, k], problem.times[rows, k]
    return torch.zeros_like(grad).index_copy(0, rows, segment(rows, state, a, at, problem.start[rows]))


def _vjp(
    f: VectorField, t: Tensor, y: State, args: Sequence[Tensor], a: State, inputs: Sequence[Tensor] = ()
) -> tuple[State, list[Tensor]]:
    """(f(t, y, *args), the gradients of a f with respect to y and `inputs`)"""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        slope = f(t, y, *args)
        if not slope.requires_grad:
            return slope, [torch.zeros_like(x) for x in (y, *inputs)]
        # The graph is retained for what f has computed once and shares between its calls.
        found = torch.autograd.grad(slope, (y, *inputs), a.to(slope.dtype), allow_unused=True, retain_graph=True)
    return slope.detach(), [torch.zeros_like(x) if g is None else g for x, g in zip((y, *inputs), found, strict=True)]


class _EachSample:
    """Every sample on its own: its state is (y, a), its error the larger of the two norms."""

    def __init__(self, adjoint: Adjoint, wanted: Sequence[bool]) -> None:
        self.adjoint, self.f = adjoint, adjoint.problem.f
        inputs = (*adjoint.problem.args, *adjoint.shared)
        self.integrals = [torch.zeros_like(x) if want else None for x, want in zip(inputs, wanted, strict=True)]

    def gradients(self) -> list[Tensor | None]:
        """The gradients of args and shared, None where none is wanted."""
        return self.integrals

    def segment(self, rows: Index, y: State, a: State, start: Times, stop: Times) -> State:
        def listener(*attempt: Any) -> None:
            self.sum_up(rows, *attempt)

        # Steps that end at `stop`, so that the integrals summed up over them do too.
        z = torch.stack((y, a), 1)
        z = self.adjoint.back(self.field, z, rows, start, stop, self.norm, clip=True, listener=listener)
        broken = z.isnan().flatten(1).any(1)
        if bool(broken.any()):
            # Half an integral is no gradient.
            for i, integral in enumerate(self.integrals):
                if integral is not None:
                    integral[rows[broken] if i < len(self.adjoint.problem.args) else ...] = torch.nan
        return z[:, 1]

    def norm(self, error: State) -> Times:
        each = self.adjoint.plan.norm
        return torch.maximum(each(error[:, 0]), each(error[:, 1]))

    def field(self, s: Tensor, z: State, direction: Times, *args: Tensor) -> State:
        sign = per_sample(direction, z[:, 0])
        slope, (change,) = _vjp(self.f, -direction.to(s.dtype) * s, z[:, 0], args, z[:, 1])
        return torch.stack((-sign * slope, sign * change), 1)

    def sum_up(self, rows: Index, at: Rows, h: Times, step: Attempt, accept: Mask) -> None:
        """Add an accepted step's share of the integrals of a df/dargs and a df/dshared."""
        integrals = {i: integral for i, integral in enumerate(self.integrals) if integral is not None}
        if not integrals or not bool(accept.any()):
            return
        tableau, at, h, step = self.adjoint.plan.tableau, at.take(accept), h[accept], step.take(accept.nonzero()[:, 0])
        direction, *args = at.args
        args = [arg.detach().requires_grad_(i in integrals) for i, arg in enumerate(args)]
        inputs = [(*args, *self.adjoint.shared)[i] for i in integrals]
        for stage, (weight, c) in enumerate(zip(tableau.solution, tableau.c, strict=True)):
            if weight:
                z = at.y
                if stage:
                    z = moved(z, per_sample(h, z), tableau.a[stage], step.stages[:stage])
                share = per_sample(weight * h * direction, z[:, 1]) * z[:, 1]
                t = (-direction * (at.t + c * h)).to(z.dtype)
                _, (_, *found) = _vjp(self.f, t, z[:, 0], args, share, inputs)
                for (i, total), gradient in zip(integrals.items(), found, strict=True):
                    if i < len(args):
                        total.index_add_(0, rows[at.index], gradient)
                    else:
                        total.add_(gradient)


class _Whole:
    """One sample whose state is (a_t, y, a, the adjoints of all shared tensors), its error the largest of their norms.

    a_t is the integral of a df/dt, which nobody asks for; torchdiffeq carries it along, and it counts in the error.
    """

    def __init__(self, adjoint: Adjoint, wanted: Sequence[bool]) -> None:
        self.adjoint, self.f = adjoint, adjoint.problem.f
        self.wanted = list(wanted)
        self.inputs = [x for x, want in zip(adjoint.shared, wanted, strict=True) if want]
        self.integrals = [torch.zeros_like(x) for x in self.inputs]
        self.time = torch.zeros_like(adjoint.problem.start)

    def gradients(self) -> list[Tensor | None]:
        """The gradients of shared, None where none is wanted."""
        found = iter(self.integrals)
        return [next(found) if want else None for want in self.wanted]

    def segment(self, rows: Index, y: State, a: State, start: Times, stop: Times) -> State:
        self.shapes = [start.shape, y.shape, a.shape, *(x.shape for x in self.inputs)]
        z = self.join([self.time, y, a, *self.integrals], y)
        z = self.adjoint.back(self.field, z, rows, start, stop, self.norm)
        self.time, _, a, *self.integrals = self.split(z)
        return a

    def join(self, parts: Sequence[Tensor], like: State) -> State:
        return torch.cat([x.reshape(-1).to(like.dtype) for x in parts])[None]

    def split(self, z: State) -> list[Tensor]:
        parts = z[0].split([shape.numel() for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def norm(self, error: State) -> Times:
        time, y, a, *integrals = self.split(error)
        each = self.adjoint.plan.norm
        sizes = [time.abs().double(), each(y), each(a), *(rms(integral.reshape(1, -1)) for integral in integrals)]
        return torch.stack(sizes).amax(0)

    def field(self, s: Tensor, z: State, direction: Times) -> State:
        _, y, a, *_ = self.split(z)
        sign = direction.to(z.dtype)
        t = (-sign * s).requires_grad_()
        slope, (change, time, *changes) = _vjp(self.f, t, y, (), a, (t, *self.inputs))
        return self.join([sign * time, -sign * slope, sign * change, *(sign * other for other in changes)], y)
