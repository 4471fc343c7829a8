"""What passes change in modules is put back; threads take turns."""

import contextlib
import threading

import pytest
import torch
from torch import nn

from danskin.callables import Found, alone, surely
from danskin.errors import InputError


class Restless(nn.Module):
    """Changes all it has in every pass, in place and anew."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("inplace", torch.zeros(2))
        self.register_buffer("anew", torch.zeros(2))
        self.register_buffer("grown", torch.zeros(0))
        self.register_buffer("hidden", torch.full((2,), torch.nan), persistent=False)
        self.register_buffer("none", None)
        self.mean, self.seen, self.ready = torch.zeros(2), None, False
        self.memory, self.count, self.times = {"a": 1.0}, torch.tensor(0), 0

    def forward(self, x):
        self.inplace.add_(1)
        self.anew = self.anew + 1
        self.grown.resize_(3).fill_(1)
        self.hidden = torch.ones(2)
        self.none = torch.ones(1)
        self.register_buffer("new", torch.ones(1))
        self.mean.add_(1)
        self.mean, self.seen, self.ready, self.late = self.mean + 1, x, True, x
        self.count += 1
        self.times += 1
        self.track = True
        self.memory["b"] = x.sum()
        return x * self.weight

    def get_extra_state(self):
        return dict(self.memory)

    def set_extra_state(self, state):
        self.memory = state


def test_everything_is_put_back_but_counts():
    net = Restless()
    state, objects = {k: v for k, v in net.state_dict().items()}, dict(net.named_buffers())
    values = {k: v.clone() for k, v in objects.items()}
    mean = net.mean
    found = Found([net])
    net(torch.ones(2))
    found.restore()
    found.restore()  # as often as one likes
    after = net.state_dict()
    assert list(after) == list(state) and after["_extra_state"] == {"a": 1.0}
    for name, buffer in net.named_buffers():
        assert buffer is objects[name]
        assert buffer.shape == values[name].shape
        assert torch.equal(buffer.nan_to_num(), values[name].nan_to_num())
    assert net.none is None and net.mean is mean and mean.tolist() == [0, 0]
    assert net.seen is None and net.ready is False and not hasattr(net, "late") and not hasattr(net, "track")
    assert net.times == int(net.count) == 1


def test_buffers_that_are_meant_to_change_do():
    net = Restless()
    found = Found([net], buffers=False, attributes=False)
    net.eval()
    net(torch.ones(2))
    found.restore()
    assert net.training and net.inplace.tolist() == net.anew.tolist() == [1, 1] and net.seen is not None


def test_a_tensor_under_two_names_stays_one():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    net[1].running_mean = net[0].running_mean
    found = Found(list(net.modules()))
    net[0].running_mean = torch.ones(2)
    net[1].running_mean.add_(5)
    found.restore()
    assert net[0].running_mean is net[1].running_mean and net[0].running_mean.tolist() == [0, 0]


def test_observers_of_a_quantization_aware_model():
    observer = torch.ao.quantization.FakeQuantize()
    net = nn.Sequential(nn.Linear(2, 2), observer).eval()
    net(torch.ones(1, 2))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = Found(list(net.modules()))
    net(100 * torch.ones(1, 2))
    assert not torch.equal(before["1.scale"], net.state_dict()["1.scale"])
    found.restore()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_scripted_modules():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))
            self.register_buffer("sum", torch.zeros(1))

        def forward(self, x):
            self.calls = self.calls + 1
            self.sum.add_(1)
            return x

    net = torch.jit.script(Counts())
    found = Found(list(net.modules()))
    net.eval()
    net(torch.ones(1))
    found.restore()
    assert net.training and float(net.calls) == float(net.sum) == 0


def test_an_interrupt_while_putting_back_is_passed_on_afterwards():
    done = []

    def restore():
        done.append(len(done))
        if len(done) < 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        surely(restore)
    assert done == [0, 1, 2]


def test_threads_take_turns_on_shared_parts_only():
    shared, other = nn.Linear(1, 1), nn.Linear(1, 1)
    inside, order, entered = threading.Event(), [], threading.Event()

    def wait():
        entered.set()
        with alone([nn.ReLU(), shared]):
            order.append("second")

    def pass_by():
        with alone([other]):
            inside.set()

    with alone([shared]), alone([shared]):
        thread = threading.Thread(target=wait)
        thread.start()
        free = threading.Thread(target=pass_by)
        free.start()
        assert entered.wait(5) and inside.wait(5)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_module_is_free_again_after_an_error():
    net = nn.Linear(1, 1)
    with contextlib.suppress(ValueError), alone([net]):
        raise ValueError
    done = threading.Event()

    def enter():
        with alone([net]):
            done.set()

    threading.Thread(target=enter).start()
    assert done.wait(5)


def test_threads_that_would_wait_for_ever_are_told():
    one, two = nn.Linear(1, 1), nn.Linear(1, 1)
    barrier, told = threading.Barrier(2, timeout=5), []

    def take(first, second):
        with alone([first]):
            barrier.wait()
            try:
                with alone([second]):
                    pass
            except InputError as error:
                told.append(str(error))

    threads = [threading.Thread(target=take, args=pair) for pair in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert len(told) == 1 and "got two that each hold a model" in told[0]
