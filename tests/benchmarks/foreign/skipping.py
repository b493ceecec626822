"""Residual connections, and mistakes in them."""

from tests.benchmarks.foreign.pieces import backwards, constant, mistake, torch, under
from tests.benchmarks.foreign.squeeze_excitation import se


def residual(p, x, *, f=se, add=torch.add):
    return add(x, f(under(p, "inner."), x))


@mistake("residual", "residual", "skip", "input left out", "left out")
def skip_lost(p, x):
    """Sum: f(x) alone."""
    return residual(p, x, add=lambda x, f: f)


@mistake("residual", "detach", "skip", "residual")
def skip_detached(p, x):
    """Sum's backward: the gradient that passes by the inner system is lost."""
    return residual(p, x, add=lambda x, f: constant(x) + f)


@mistake("residual", "detach", "inner", "constant")
def skip_inner_detached(p, x):
    """Sum's backward: the inner system gets no gradient."""
    return residual(p, x, add=lambda x, f: x + constant(f))


@mistake("residual", "twice", "skip", "doubled", "residual")
def skip_added_twice(p, x):
    """Sum: 2 x + f(x); the inner system adds its input too."""
    return residual(p, x, add=lambda x, f: 2 * x + f)


@mistake("residual", "relu", "activation", "followed by a ReLU")
def skip_rectified(p, x):
    """Sum: a ReLU follows, as in the block of ResNet."""
    return torch.relu(residual(p, x))


@mistake("residual", "average", "halved", "mean")
def skip_averaged(p, x):
    """Sum: divided by 2."""
    return residual(p, x) / 2


@mistake("residual", "subtract", "sign", "minus")
def skip_subtracted(p, x):
    """Sum: x - f(x)."""
    return residual(p, x, add=torch.sub)


@mistake("residual", "product", "multiplied")
def skip_multiplied(p, x):
    """Sum: x f(x)."""
    return residual(p, x, add=torch.mul)


@mistake("residual", "in place", "overwritten", "rectified", "relu", "input")
def skip_of_the_rectified_input(p, x):
    """Sum: the skip passes relu(x), since an activation in place has overwritten x."""
    return residual(p, x, add=lambda x, f: torch.relu(x) + f)


@mistake("residual", "scale", "drop path", "depth", "factor")
def skip_inner_scaled(p, x):
    """Sum: x + f(x) / 0.8, a drop path left on in inference."""
    return residual(p, x, add=lambda x, f: x + f / 0.8)


@mistake("residual", "twice", "doubled", "gradient", "accumulated")
def skip_gradient_twice(p, x):
    """Sum's backward: the skip's gradient is added twice, on allocation and on accumulation."""
    return residual(p, x, add=lambda x, f: backwards(x, lambda g: 2 * g) + f)


@mistake("residual", "relu", "activation")
def skip_inner_without_relu(p, x):
    """Inner system: no ReLU between its layers."""
    return residual(p, x, f=lambda p, x: se(p, x, act=lambda h: h))


@mistake("residual", "layout", "transpose", "height and width", "H and W", "broadcast", "map with rows in reverse")
def skip_of_the_turned_map(p, x):
    """Sum: the skip's rows are read in reverse, by a flip that was meant for augmentation."""
    return residual(p, x, add=lambda x, f: x.flip(2) + f)
