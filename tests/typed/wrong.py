"""Mistakes in the use of the public face: a type checker must name every line that is marked `# wrong`."""

import torch
from torch import Tensor, nn

import adamode


def decay(t: Tensor, y: Tensor) -> Tensor:
    """y' = −y."""
    return -y


def one_argument(y: Tensor) -> Tensor:
    """No t."""
    return -y


def slope(y: Tensor) -> Tensor:
    """A Jacobian without t."""
    return -y[:, None]


def slopes(t: Tensor, y: Tensor) -> Tensor:
    """∂f/∂y of each sample."""
    return -torch.ones(len(y), 1, 1)


y0, t, net = torch.ones(2, 1), torch.linspace(0.0, 1.0, 3), nn.Linear(1, 1)
sol = adamode.solve(decay, y0, t)
each = adamode.solve(decay, y0, t, stepping="per_sample")
block = adamode.HBNODE(net)

adamode.no_such_name  # wrong
adamode.Disrete()  # wrong
adamode.Discrete(keep="stagse")  # wrong
adamode.Discrete(checkpoint=4)  # wrong
adamode.Discrete().keep = "state"  # wrong
adamode.Interpolating(rtol="1e-6")  # wrong
adamode.Backsolve(norm="rms")  # wrong
adamode.Backsolve(anchors=1.5)  # wrong
adamode.Reversible(coupling="0.9")  # wrong
adamode.LogDensity(one_argument)  # wrong
adamode.LogDensity(decay, noise="white")  # wrong
adamode.Flow(decay, rtoll=1e-5)  # wrong
adamode.PID(saftey=0.9)  # wrong
adamode.PI(saftey=0.9)  # wrong
adamode.I(safety="0.9")  # wrong
adamode.Event(decay, direction=2)  # wrong
adamode.Event(one_argument)  # wrong
adamode.Event(decay, reset=one_argument)  # wrong
adamode.Impulse([0.5])  # wrong
adamode.Impulse("now", decay)  # wrong
adamode.solve(decay, y0)  # wrong
adamode.solve(one_argument, y0, t)  # wrong
adamode.solve(decay, (y0, y0), t)  # wrong
adamode.solve(decay, y0, [0.0, 1.0])  # wrong
adamode.solve(decay, y0, t, rtoll=1e-6)  # wrong
adamode.solve(decay, y0, t, rtol="1e-6")  # wrong
adamode.solve(decay, y0, t, stepping="per_sampel")  # wrong
adamode.solve(decay, y0, t, save="ends")  # wrong
adamode.solve(decay, y0, t, norm="l2")  # wrong
adamode.solve(decay, y0, t, method=5)  # wrong
adamode.solve(decay, y0, t, jac=3)  # wrong
adamode.solve(decay, y0, t, method="radau5", jac=slope)  # wrong
adamode.solve(decay, y0, t, jac=slopes(t, y0))  # wrong
adamode.solve(decay, y0, t, linear_solver="gmers")  # wrong
adamode.solve(decay, y0, t, gradient="discrete")  # wrong
adamode.solve(decay, y0, t, gradient=adamode.Discrete)  # wrong
adamode.solve(decay, y0, t, controller=adamode.PI)  # wrong
adamode.solve(decay, y0, t, events=[decay])  # wrong
adamode.solve(decay, y0, t, max_steps=1e5)  # wrong
adamode.solve(decay, y0, t, 1e-6)  # wrong
adamode.solve(decay, y0, t, signal=y0)  # wrong
adamode.Signal(t, y0, kind="held")  # wrong
sol.stat  # wrong
sol.y.no_such_method()  # wrong
sol.stats.nfev  # wrong
sol.stats.nfe.tolist()  # wrong
sol.status.succes  # wrong
sol([0.5])  # wrong
each.status.name  # wrong
each.stats.n_steps.no_such_method()  # wrong
adamode.Status.SUCCES  # wrong
adamode.odeint(decay, y0, t, rtoll=1e-6)  # wrong
adamode.odeint(decay, y0, t, method=5)  # wrong
adamode.odeint(decay, y0, t).no_such_method()  # wrong
adamode.odeint(decay, y0, t, options=[0.1])  # wrong
adamode.odeint_adjoint(decay, y0, t, adjoint_rtoll=1e-6)  # wrong
adamode.odeint_adjoint(decay, y0, t, adjoint_params=y0[0] > 0 or 3)  # wrong
adamode.odeint_event(decay, y0, t)  # wrong
adamode.solve(decay, y0, t, penalties=("kinetik",))  # wrong
adamode.sample(decay, y0, t, step=4)  # wrong
adamode.sample(decay, y0, 1.0)  # wrong
adamode.sample(decay, y0, t, callback=3)  # wrong
adamode.NODE(net, rtoll=1e-6)  # wrong
adamode.NODE()  # wrong
adamode.NODE(net, stepping="per_sampel")  # wrong
adamode.ANODE(net)  # wrong
adamode.SONODE(net, t=3)  # wrong
adamode.GHBNODE(net, activation="relu")  # wrong
adamode.GHBNODE(net, activation="identity")  # wrong
adamode.MomentumNODE(net, damping="nesterof")  # wrong
adamode.GNesterovNODE(net, xi="1")  # wrong
adamode.NesterovNODE(net, gamma=0.1)  # wrong
adamode.AdamNODE(net, denominator="sqrt")  # wrong
adamode.AdamNODE(net, adjoint_form="papre")  # wrong
block.gamma.no_such_method()  # wrong
block(y0).no_such_method()  # wrong
block.trajectory(y0, t).h  # wrong
adamode.TrainConfig(epoch=3)  # wrong
adamode.TrainConfig(epochs="3")  # wrong
adamode.Trainer(adamode.TrainConfig()).no_such_method()  # wrong
adamode.SolverError(0.0, 0.1, adamode.Status.MAX_STEPS).time  # wrong
adamode.load(3)  # wrong
adamode.TrainConfig(data=3)  # wrong
