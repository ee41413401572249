"""A device that is not there: tensors that say they are elsewhere, with real numbers behind them.

    with VirtualDevice() as device:
        y0 = torch.ones(3, device=DEVICE)        # or there(torch.ones(3)); a module: there(module)
        solution = adamode.solve(func, y0, t)
    device.reads                                 # what made the host wait for numbers: names, counted
    device.uploads                               # copies to the device that the host waited for
    here(solution.y)                             # the numbers

It finds without any GPU what a GPU would stumble over: operators that mix the tensors of two devices,
reads of a value by the host, copies that the host waits for, tensors made on the wrong device. The rules
are those of CUDA: a 0-d tensor of the CPU may meet tensors of the device in a pointwise operator alone, and
a copy to the device is waited for unless it is ``non_blocking``. It does not show speed, streams, CUDA
graphs or the rounding of kernels.

The device's type is "lazy": torch knows the name, autograd's engine walks its graphs on the caller's
thread, code that asks ``device.type == "cpu"`` takes an accelerator's path, and it has no autocast.
"""

from __future__ import annotations

import collections
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

DEVICE = torch.device("lazy", 0)
READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "argwhere")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
MOVES = ("copy_", "_to_copy", *INDEXING)  # from device to device, themselves
TAKES_SCALARS = ("masked_fill", "masked_fill_", "fill_", "where")  # 0-d ones of the CPU; pointwise ones do


class Far(Tensor):
    """A tensor over there; `data_` holds its numbers on the CPU."""

    data_: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data: Tensor) -> Far:
        far = torch.Tensor._make_wrapper_subclass(
            cls,
            data.size(),
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            layout=data.layout,
            device=DEVICE,
        )
        far.data_ = data
        return far

    def __init__(self, data: Tensor):
        """All is done when it is made."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return call(func, args, kwargs or {}, seen())

    # What torch does below the dispatcher:

    def tolist(self) -> Any:
        """One read."""
        seen().read("tolist")
        return self.data_.tolist()

    def numpy(self, *args: Any, **options: Any) -> Any:
        """Refused, as on any device."""
        raise TypeError("a tensor on another device has no numpy view: copy it to the CPU first")

    __array__ = numpy

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None) -> Tensor:
        """One upload."""
        seen().upload("new_tensor")
        return Far(torch.tensor(data, dtype=dtype or self.dtype, device="cpu"))

    def __getitem__(self, index: Any) -> Tensor:
        return Tensor.__getitem__(self, moved(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        Tensor.__setitem__(self, moved(index), value)

    def __repr__(self) -> str:
        return f"Far({self.data_})"


def moved(index: Any) -> Any:
    """An index whose lists of numbers were copied to the device."""
    if isinstance(index, tuple):
        return tuple(moved(i) for i in index)
    if not isinstance(index, list):
        return index
    seen().upload("index")
    return Far(torch.tensor(index, device="cpu"))


class Seen:
    """What a device was made to do: reads and uploads, by the operator's name."""

    def __init__(self) -> None:
        self.reads: collections.Counter[str] = collections.Counter()
        self.uploads: collections.Counter[str] = collections.Counter()

    def read(self, name: str, happened: bool = True) -> None:
        """The host asked for numbers."""
        self.reads.update([name] * happened)

    def upload(self, name: str, happened: bool = True) -> None:
        """Numbers of the host went over there, and it waited."""
        self.uploads.update([name] * happened)


@functools.cache
def name_of(func: Any) -> str:
    """mul of aten::mul.Tensor."""
    return func._schema.name.removeprefix("aten::")


def check_mixture(func: Any, near: list[Tensor]) -> None:
    """RuntimeError where CUDA would say "Expected all tensors to be on the same device"."""
    if name_of(func) in MOVES:
        return
    scalars = torch.Tag.pointwise in func.tags or name_of(func) in TAKES_SCALARS
    if not scalars or any(x.dim() for x in near):
        found = ", ".join(f"{tuple(x.shape)} on {x.device}" for x in near)
        raise RuntimeError(f"{func} mixes devices: {found} beside tensors on {DEVICE}")


def note_waits(func: Any, args: tuple, kwargs: dict[str, Any], log: Seen) -> None:
    """Writes down what of an operator on tensors over there the host would wait for."""
    name = name_of(func)
    if name in READS:
        log.read(name)
    elif name in INDEXING:
        given = [i for i in args[1] if i is not None]
        for i in given:
            log.read("boolean index", i.dtype in (torch.bool, torch.uint8))
            log.upload("index", not isinstance(i, Far))
    elif name == "copy_":
        into, source, blocks = args[0], args[1], not (len(args) > 2 and args[2])
        log.read("copy", isinstance(source, Far) and not isinstance(into, Far))
        log.upload("copy", isinstance(into, Far) and not isinstance(source, Far) and blocks)
    elif name == "_to_copy" and kwargs.get("device") is not None:
        goes = torch.device(kwargs["device"]).type == DEVICE.type
        log.read("to", isinstance(args[0], Far) and not goes)
        log.upload("to", goes and not isinstance(args[0], Far) and not kwargs.get("non_blocking"))


def numbers(x: Any, far: dict[int, Far], near: list[Tensor]) -> Any:
    """An operator's argument with the numbers of what is over there, which far and near then list."""
    if isinstance(x, Far):
        far[id(x.data_)] = x
        return x.data_
    if isinstance(x, Tensor):
        near.append(x)
    elif isinstance(x, (list, tuple)):
        return [numbers(y, far, near) for y in x]
    return x


def call(func: Any, args: tuple, kwargs: dict[str, Any], log: Seen) -> Any:
    """One operator, done on the numbers; its result is over there where it belongs there."""
    asked = kwargs.get("device")
    goes = asked is not None and torch.device(asked).type == DEVICE.type
    far: dict[int, Far] = {}
    near: list[Tensor] = []
    own = [numbers(x, far, near) for x in args]
    named = {name: numbers(x, far, near) for name, x in kwargs.items()}
    if not (far or goes):
        return func(*args, **kwargs)
    note_waits(func, args, kwargs, log)
    if far and near:
        check_mixture(func, near)
    if goes:
        named["device"] = "cpu"
    found = func(*own, **named)
    here_in_place = name_of(func).endswith("_") and not isinstance(args[0], Far)
    if here_in_place or (asked is not None and not goes):
        return found

    def result(x: Any) -> Any:
        if isinstance(x, Tensor):
            known = far.get(id(x))
            return Far(x) if known is None else known  # in place, or out=: the tensor that was handed in
        return type(x)(map(result, x)) if isinstance(x, (list, tuple)) else x

    return result(found)


class VirtualDevice(TorchDispatchMode, Seen):
    """The device while it is there; reads, uploads: what the host waited for since it was entered.

    torch.tensor and torch.as_tensor make their results below the dispatcher: while the device is there they
    stand replaced.
    """

    current: VirtualDevice | None = None

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        Seen.__init__(self)
        self._makers: dict[str, Any] = {}

    def __enter__(self) -> VirtualDevice:
        VirtualDevice.current = self
        for name in ("tensor", "as_tensor"):
            self._makers[name] = getattr(torch, name)
            setattr(torch, name, functools.partial(self._made, self._makers[name]))
        super().__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)
        for name, maker in self._makers.items():
            setattr(torch, name, maker)
        VirtualDevice.current = None

    def _made(self, maker: Any, data: Any, *args: Any, device: Any = None, **options: Any) -> Tensor:
        """A tensor from the host's numbers, copied to where it was asked for."""
        if isinstance(data, Tensor) or device is None or torch.device(device).type != DEVICE.type:
            return maker(data, *args, device=device, **options)
        self.upload("tensor")
        return Far(maker(data, *args, device="cpu", **options))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return call(func, args, kwargs or {}, self)


def seen() -> Seen:
    """The device's, or one that nobody looks at."""
    return VirtualDevice.current or Seen()


def there(x: Any) -> Any:
    """A tensor, a pytree of such or a module (in place), over there; leaves stay leaves."""
    if isinstance(x, nn.Module):
        for part in x.modules():
            for name, value in part._parameters.items():
                if value is not None:
                    part._parameters[name] = nn.Parameter(Far(value.detach().clone()), value.requires_grad)
            for name, value in part._buffers.items():
                if value is not None:
                    part._buffers[name] = Far(value.detach().clone())
        return x
    return tree_map_only(Tensor, lambda v: Far(v.detach().clone()).requires_grad_(v.requires_grad), x)


def here(x: Any) -> Any:
    """The numbers of a tensor or a pytree of such."""
    return tree_map_only(Tensor, lambda v: v.detach().data_ if isinstance(v, Far) else v.detach(), x)
