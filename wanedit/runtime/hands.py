"""Making the tasks of a run where its folder is not seen, as on a node of a Ray cluster without a shared disk.

The worker is a process that sees the folder: it claims a task, reads what the task reads and keeps what comes of it, as
every worker does, so that queue, fences and journal are those of all. Its networks alone are elsewhere, in a `Hand`: a
task goes there with its pictures and latents in memory, and what its steps tell and what it comes to are streamed back.
"""

import copy
import io
import os
import pickle
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from wanedit.errors import HandedOver, InputError, WaneditError
from wanedit.lit.model import hash_model, open_model
from wanedit.lit.tasks import Answers, Work, asked, at_hand
from wanedit.outside import look_in, sources
from wanedit.runtime.launch import threads
from wanedit.runtime.pool import NotHereError
from wanedit.runtime.predict import Elsewhere
from wanedit.runtime.settings import SampledSettings

# Attributes of modules: the model, by whichever of its names; those that are told of steps; and what the network's
# answers go through.
MODEL, TOLD, KEPT = ("folder", "opened"), ("on_step", "watch"), "kept"
ANSWERED, MADE, RAISED = "answered", "made", "raised"
# Of what is told: what by, and with what.
Said = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Order:
    """How tasks are made.

    Attributes:
        module: pickled, without its model and without those whom it tells.
        config: says which model, and on how many threads.
        decides: SHA-256 of the model's files and of modules from outside, by name.
        told: who is told of steps, of `TOLD`.
    """

    module: bytes
    config: SampledSettings
    decides: dict[str, str]
    told: tuple[str, ...]


# Has a task made, of which the network has answered so much before, and gives what is told: of `TOLD`; by ANSWERED what
# the network says, None for the next that it said before; at last by MADE the prediction.
Ask = Callable[[Order, Work, list[Tensor]], Generator[Said, None, None]]


def through(ask: Ask) -> Elsewhere:
    """Have tasks made by a hand, one after the other, for `wanedit.runtime.predict.making`."""

    def make(module: Any, tasks: Iterable[Any], save: Callable[[Any], None], config: SampledSettings) -> None:
        told = {name: call for name in TOLD if (call := getattr(module, name, None)) is not None}
        model = next(own for name in MODEL if (own := getattr(module, name, None)) is not None)
        bare, kept = _bare(module), getattr(module, KEPT, asked)
        order = Order(bare, config, hash_model(model) | _loaded(bare)[1], tuple(told))
        for task in tasks:
            made, known = None, _known(kept(task.digest))
            with (
                suppress(HandedOver),
                closing(ask(order, at_hand(task), known)) as said,
                kept(task.digest) as answers,
            ):
                for name, given in said:
                    if name == MADE:
                        [made] = given
                    elif name == ANSWERED:
                        answers(_not_known if given[0] is None else partial(_same, *given))
                    else:
                        told[name](*given)
            if made is not None:
                save(made)

    return make


class _NotKnownError(Exception):
    pass


def _not_known() -> Tensor:
    raise _NotKnownError


def _same(velocity: Tensor) -> Tensor:
    return velocity


def _known(kept: AbstractContextManager[Answers]) -> list[Tensor]:
    """What the network has answered before, up to the first answer that is not kept."""
    found: list[Tensor] = []
    with suppress(_NotKnownError), kept as answers:
        while True:
            found.append(answers(_not_known))
    return found


def _bare(module: Any) -> bytes:
    bare = copy.copy(module)
    for name in {*MODEL, *TOLD, KEPT} & vars(bare).keys():
        setattr(bare, name, None)
    return pickle.dumps(bare)


def _loaded(bare: bytes) -> tuple[Any, dict[str, str]]:
    """A module, and SHA-256 of what is from outside of all that makes it."""
    found: dict[str, str] = {}

    class Loader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            made = super().find_class(module, name)
            found.update(
                {f"module {own}": source.sha256 for own, source in sources(module, "wanedit").items()}
            )
            return made

    return Loader(io.BytesIO(bare)).load(), found


class Hand:
    """Makes tasks for a worker that sees the run's folder. Its networks stay warm from one task to the next."""

    def __init__(self) -> None:
        self.order: Order | None = None
        self.module: Any = None
        self.said: SimpleQueue[Said] = SimpleQueue()
        self.known: list[Tensor] = []

    def make(self, order: Order, task: Work, known: list[Tensor]) -> Generator[Said, None, None]:
        """As `Ask`.

        Raises:
            NotHereError: the model is not there, or another. Besides as the module.
        """
        # Arrays that come out of Ray's store cannot be written to.
        task, self.known, self.said = *copy.deepcopy((task, known)), SimpleQueue()
        self.take(order)
        Thread(target=self._make, args=(task,), daemon=True).start()
        name = ""
        while name != MADE:
            name, given = self.said.get()
            if name == RAISED:
                raise given[0]
            yield name, given

    def _make(self, task: Work) -> None:
        assert self.order is not None, "`take` comes first"
        try:
            # Without a Trainer, which would load the networks anew for every task.
            with threads(self.order.config.cpu_threads or 1):
                self.said.put((MADE, (self.module.predict_step(task),)))
        except BaseException as error:
            self.said.put((RAISED, (error,)))

    def take(self, order: Order) -> None:
        """Open the model, unless the order is the one before. Raises NotHereError."""
        if order == self.order:
            return
        if self.module is not None:
            self.module.teardown("predict")
            self.order = self.module = None
        config = order.config
        try:
            look_in(config.module_folders)
            chosen = (config.parts, config.loras, config.lora_partial)
            model = open_model(config.source, *chosen, distilled=config.distilled)
            module, code = _loaded(order.module)
            if differs := {*order.decides.items()} ^ {*(hash_model(model) | code).items()}:
                raise InputError(
                    f"{min(differs)[0]} of {config.source} is another than where the run's folder is; expected the "
                    "same model and modules"
                )
        except (WaneditError, ImportError, AttributeError) as error:
            raise NotHereError(f"the node {os.uname().nodename}: {error}") from None
        for name in {*MODEL} & vars(module).keys():
            setattr(module, name, model)
        for name in order.told:
            setattr(module, name, partial(self._tell, name))
        if KEPT in vars(module):
            setattr(module, KEPT, lambda digest: nullcontext(self._answer))
        module.to("cuda" if torch.cuda.is_available() else "cpu")
        self.order, self.module = order, module

    def _tell(self, name: str, *given: Any) -> None:
        # What is sent later must not change meanwhile.
        still = (one.detach().to("cpu", copy=True) if isinstance(one, Tensor) else one for one in given)
        self.said.put((name, tuple(still)))

    def _answer(self, ask: Callable[[], Tensor]) -> Tensor:
        if self.known:
            self._tell(ANSWERED, None)
            return self.known.pop(0)
        velocity = ask()
        # A derivative's is no tensor of its own; what is not finite is not kept.
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(velocity)  # pyright: ignore[reportAttributeAccessIssue]
        self._tell(ANSWERED, torch.tensor(torch.nan) if wrapped else velocity)
        return velocity
