"""Systems as users write them: tagged, without tags, half tagged, made of others, in every form of statement."""

import functools
from dataclasses import dataclass

import numpy as np

from npattn import EfficientChannelAttention, layers, ops
from npattn.module import Module, Pass
from npattn.parameters import add_prefix, strip_prefix


@dataclass(frozen=True)
class Own(Module):
    """What the systems here have in common: a map of two channels, no parameters."""

    channels: int = 2

    @classmethod
    def example(cls):
        return cls()


class Tagged(Own):
    """Statements of every form, each with what it assigns to be seen after it."""

    def forward(self, params, x):
        p, back_pool = ops.global_average_pool(  # several lines
            x,
        )  # (1)
        q = (half := p / 2) + 1  # (2)
        first, *others = q, q + 1, {"statistic": q + 2}  # (3)
        for _ in range(2):
            q = q * 10  # (4)
        for i in range(2):  # (5)
            last = q + i
        q[..., 0] = 7  # (6)
        if self.channels > 2:
            q = half, first, others  # (7)
        scale = float(2)  # (8)  # a comment behind the number
        shift = scale  # (3) of another page
        y, back_gate = ops.gate(x, last)  # (9)  # y = x last
        np.negative(y, out=y)  # (10)

        def backward(dy):
            dx, da = back_gate(-dy)  # (9')
            da *= 5 * shift  # (8')
            return back_pool(da * 100, accumulate_into=dx), {}  # (1')

        return Pass(y, backward)  # (11)


class Written(Own):
    """Statements that write to an array and return nothing, or what nobody names."""

    def forward(self, params, x):
        a, scale = x + 1, 2.0
        a += x  # (1)
        np.multiply(a, x, out=a)  # (2)
        np.add.at(a, 0, scale)  # (3)
        np.copyto(a[:, 0], scale)  # (4)
        a.sort(axis=-1)  # (5)
        add_into(a, x)  # (6)
        print(scale, end="")  # (7)
        y = np.empty_like(x)
        np.add(a, x, out=y[...])  # (8)
        return Pass(y, lambda dy: (dy, {}))


def add_into(y, x):
    y += x


def halve(x):
    return x / 2


class Namesake(Own):
    """A method that calls a function of its own name."""

    def forward(self, params, x):
        y = self.halve(x)  # (1)
        return Pass(y, lambda dy: (dy / 2, {}))

    def halve(self, x):
        return halve(x)


class Untagged(Own):
    def forward(self, params, x):
        p, back_pool = ops.global_average_pool(x)
        a, back_sigmoid = self._activate(p)
        y, back_gate = ops.gate(x, a)
        return Pass(y, lambda dy: (self._back(dy, back_gate, back_sigmoid, back_pool), {}))

    def _activate(self, p):
        return ops.sigmoid(p)

    def _back(self, dy, back_gate, back_sigmoid, back_pool):
        dx, da = back_gate(dy)
        return back_pool(back_sigmoid(da), accumulate_into=dx)


class ForwardTagged(Own):
    def forward(self, params, x):
        r, back_relu = ops.relu(x)  # (1)
        y, back_norm = ops.l2_normalize(r, 1e-5)  # (2)
        return Pass(y, lambda dy: (back_relu(back_norm(dy)), {}))


class BackwardTagged(Own):
    def forward(self, params, x):
        y, back_relu = ops.relu(x)

        def backward(dy):
            dx = back_relu(dy)  # (1')
            return dx, {}

        return Pass(y, backward)


class Heir(EfficientChannelAttention):
    """Calls what it inherits, and adds a step."""

    def forward(self, params, x):
        run = super().forward(params, x)
        y = run.output * 2  # (5)

        def backward(dy):
            dx, grads = run.backward(2 * dy)
            return dx, grads

        return Pass(y, backward)


def logged(forward):
    @functools.wraps(forward)
    def wrapper(self, *arguments):
        return forward(self, *arguments)

    return wrapper


class Decorated(Own):
    @logged
    def forward(self, params, x):
        y, back = ops.relu(x)  # (1)
        return Pass(y, lambda dy: (back(dy), {}))


class Private(Own):
    """Private names and free variables keep their meaning."""

    def forward(self, params, x):
        y = x * self.__factor()  # (1)
        return Pass(y, functools.partial(self._back, self.__factor()))

    def __factor(self):
        return 3.0

    def _back(self, factor, dy):
        dx = dy * factor  # (1')
        return dx, {}


@dataclass(frozen=True)
class Chain(Module):
    """One system after the other, called as a user calls them: the parts' names are those of their parameters."""

    parts: tuple = ()

    @classmethod
    def example(cls):
        return cls((EfficientChannelAttention(2), Untagged()))

    def input_shapes(self, batch, height, width):
        return self.parts[0].input_shapes(batch, height, width)

    def parameters(self):
        named = (add_prefix(f"part{i}.", part.parameters()) for i, part in enumerate(self.parts))
        return functools.reduce(dict.__or__, named)

    def forward(self, params, x):
        runs = []
        for i, part in enumerate(self.parts):
            run = part(strip_prefix(f"part{i}.", params), x)
            x = run.output  # (1)
            runs.append((f"part{i}.", run.backward))

        def backward(dy):
            grads = {}
            for prefix, back in reversed(runs):
                dy, new = back(dy)  # (1')
                grads |= add_prefix(prefix, new)
            return dy, grads

        return Pass(x, backward)


class Named(Own):
    """Tagged helpers, of which each is known by the name that it is given, or by its own."""

    def forward(self, params, x):
        y, back_left = branch(x, name="left")  # (1)
        y, back_right = branch(y, name="right")  # (2)
        y, back_double = doubled(y)  # (3)
        return Pass(y, lambda dy: (back_left(back_right(back_double(dy))), {}))


def branch(x, name):
    r, back_relu = ops.relu(x)  # (1)
    return r, back_relu


def doubled(x):
    d = 2 * x  # (1)
    return d, lambda dy: 2 * dy


class Failing(Own):
    """Fails where it is told to, after a step."""

    where = "forward"

    def forward(self, params, x):
        y, back = ops.relu(x)  # (1)
        if self.where == "forward":
            raise ZeroDivisionError

        def backward(dy):
            dx = back(dy)  # (1')
            raise ZeroDivisionError(dx)

        return Pass(y, backward)


class FailingBackward(Failing):
    where = "backward"


@dataclass(frozen=True)
class Meeting(Own):
    """Waits for another thread between two steps, forward and backward."""

    meet: object = None

    def forward(self, params, x):
        r, back = ops.relu(x)  # (1)
        self.meet()
        y = r + 1  # (2)

        def backward(dy):
            dr = dy * 2  # (2')
            self.meet()
            dx = back(dr)  # (1')
            return dx, {}

        return Pass(y, backward)


class Sub(Own):
    """A part without parameters, run as `layers.submodule` runs one."""

    def forward(self, params, x):
        run = layers.submodule(Tagged().forward, params, "pool", x)  # (1)
        return Pass(run.output, run.backward)
