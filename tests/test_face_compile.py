"""Under a user's own torch.compile a solve is one clean graph break."""

import pytest
import torch

import adamode


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 3)

    def forward(self, t, y):
        return torch.tanh(self.net(y)) * t


T = torch.tensor([0.0, 0.5, 1.0])
FIELD = Net()


def stepped(y0):
    return adamode.odeint(FIELD, y0 * 2, T, rtol=1e-4)[-1].sin()


def adjoint(y0):
    return adamode.odeint_adjoint(FIELD, y0 * 2, T, rtol=1e-4)[-1].sin()


def event(y0):
    when, y = adamode.odeint_event(FIELD, y0 * 2, T[0], event_fn=lambda t, y: t - 0.5, rtol=1e-4)
    return y[-1].sin() * when


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at it, at every intermediate
@pytest.mark.parametrize("program", [stepped, adjoint, event])
def test_a_compiled_program_breaks_once_and_computes_the_same(program):
    torch._dynamo.reset()
    y0 = torch.ones(2, 3, requires_grad=True)
    report = torch._dynamo.explain(program)(y0)
    assert report.graph_break_count == 1
    torch._dynamo.reset()
    found, wanted = torch.compile(program, backend="eager")(y0), program(y0)
    assert torch.equal(found, wanted)
    (a,), (b,) = (torch.autograd.grad(y.sum(), y0) for y in (found, wanted))
    assert torch.equal(a, b)
