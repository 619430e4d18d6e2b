"""Compiled blocks and decoding: how many graphs, the same numbers, errors that are told."""

import json
from typing import Any

import pytest

from tests.runs import start_process

# In a process of its own, for the shapes that tests check at every call are no part of a graph.
BEGIN = """
import json, torch
from torch._dynamo.testing import CompileCounter
from tests.wan import small
def found(**numbers): print(json.dumps(numbers), flush=True)
def off(a, b): return float((a - b).norm() / b.norm())
torch.set_grad_enabled(False)
"""
BLOCKS = """
counter, model, plain = CompileCounter(), small.transformer(), small.transformer()
model.compile_blocks(counter)
for batch, grid in ((2, (4, 4, 6)), (2, (7, 4, 6)), (2, (3, 6, 4)), (1, (4, 4, 6)), (1, (9, 8, 4))):
    inputs = small.inputs(model, batch, grid)
    found(test="lengths", off=off(model(**inputs), plain(**inputs)), graphs=counter.frame_count)

for kind in ("vace", "ti2v"):
    counter, model = CompileCounter(), small.transformer(kind)
    model.compile_blocks(counter)
    for slots in (4, 6, 9):
        inputs = small.inputs(model, 1, (slots, 4, 6))
        model(**(inputs if kind == "vace" else inputs | {"timestep": torch.full((1, slots), 500.0)}))
        found(test=kind, graphs=counter.frame_count)

from wanedit.wan.packed import PackedLinear, rounded
counter, model, eagerly = CompileCounter(), small.transformer(), small.transformer()
for one in (model, eagerly):
    for block in one.block_list():
        for k, kind in ((0, "int8"), (2, "fp8")):
            block.ffn[k] = PackedLinear(rounded(block.ffn[k].weight, kind), block.ffn[k].bias)
model.compile_blocks(counter)
for slots in (4, 7):
    inputs = small.inputs(model, 2, (slots, 4, 6))
    found(test="packed", off=off(model(**inputs), eagerly(**inputs)), graphs=counter.frame_count)

# What is told along time has a graph of its own.
counter, model = CompileCounter(), small.transformer("t2v")
model.compile_blocks(counter)
one = small.transformer("t2v")
for slots in (4, 7):
    inputs = small.inputs(model, 1, (slots, 4, 6))
    told = {"text": inputs["text"].repeat(1, 3, 1)[:, :20], "penalty": torch.arange(2.0 * slots).reshape(slots, 2)}
    apart = [m.velocity(inputs["latents"], inputs["timestep"], m.prepare((slots, 4, 6), **told)) for m in (model, one)]
    found(test="told", off=off(*apart), graphs=counter.frame_count)

from wanedit.wan import attention
from wanedit.wan.config import ATTENTIONS
eager = 0
def own(q, k, v):
    global eager
    if not torch.compiler.is_compiling():
        eager += 1
    return attention.sdpa(q, k, v)
ATTENTIONS._own["flash"] = own
counter, model = CompileCounter(), small.transformer()
model.set_attention("flash")
model.compile_blocks(counter)
inputs = small.inputs(model)
found(test="attention", off=off(model(**inputs), plain(**inputs)), graphs=counter.frame_count, eager=eager,
      off_sdpa=model.off_sdpa)

from wanedit.flow.covariance import covariance_product
from wanedit.flow.path import Step
step, z, w = Step(0, 0.5, 0.4, 500.0), inputs.pop("latents"), torch.randn(1, 16, *small.GRID)
def product(of):
    return covariance_product(lambda x, step: of(x, **inputs), z, torch.zeros_like(z), step, "forward")(w)
found(test="derivative", off=off(product(model), product(plain)))

from wanedit.errors import ResourceError
from wanedit.lit.chain import SequenceDecoder
def broken(graph, inputs): raise RuntimeError("no C++ compiler")
model = small.transformer()
model.compile_blocks(broken)
try:
    with SequenceDecoder(None).working_on("segment 3", None, ""):
        model(**small.inputs(model))
except ResourceError as error:
    found(test="broken", said=str(error))
"""
Lines = list[dict[str, Any]]


def told(script: str) -> Lines:
    process = start_process(["-c", BEGIN + script])
    out, err = process.communicate()
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def blocks() -> Lines:
    return told(BLOCKS)


def of(lines: Lines, test: str, name: str) -> list[Any]:
    return [line[name] for line in lines if line["test"] == test]


def test_segments_of_all_lengths_and_sizes_share_a_graph(blocks: Lines) -> None:
    # One under guidance in a batch, one more for a single pass: sizes of one are told apart.
    assert of(blocks, "lengths", "graphs") == [1, 1, 1, 2, 2]
    assert max(of(blocks, "lengths", "off")) < 1e-6


def test_hint_blocks_and_times_of_each_slot_have_a_graph_of_their_own_and_no_more(blocks: Lines) -> None:
    assert of(blocks, "vace", "graphs") == [2, 2, 2]
    assert of(blocks, "ti2v", "graphs") == [1, 1, 1]


def test_packed_weights_and_prompts_along_time_compile_whole_for_all_lengths(blocks: Lines) -> None:
    for test in ("packed", "told"):
        assert of(blocks, test, "graphs") == [1, 1]
        assert max(of(blocks, test, "off")) < 1e-6


def test_attention_is_checked_outside_of_the_graph_and_computed_in_it(blocks: Lines) -> None:
    assert of(blocks, "attention", "graphs") == [1]
    assert max(of(blocks, "attention", "off")) < 1e-6
    assert of(blocks, "attention", "off_sdpa") == [0]
    assert of(blocks, "attention", "eager") == [2 * 3]


def test_a_derivative_is_taken_of_blocks_that_are_not_compiled(blocks: Lines) -> None:
    assert max(of(blocks, "derivative", "off")) < 1e-6


def test_what_the_compiler_cannot_do_is_told(blocks: Lines) -> None:
    [said] = of(blocks, "broken", "said")
    assert said.startswith("segment 3: torch.compile: ")
    assert "no C++ compiler" in said
    assert "goes on without compile" in said


@pytest.mark.slow
def test_decoding_is_compiled_once_for_lengths_and_gives_the_same_frames() -> None:
    lines = told("""
from wanedit.wan.load import load_vae
counter, vae, plain = CompileCounter(), load_vae("tiny"), load_vae("tiny")
vae.compile_decoding(counter)
for slots in (21, 25, 23):
    latents = torch.randn(1, 16, slots, 4, 6)
    found(test="decoding", off=off(vae.decode(latents), plain.decode(latents)), graphs=counter.frame_count)
""")
    assert of(lines, "decoding", "graphs") == [1, 1, 1]
    assert max(of(lines, "decoding", "off")) < 1e-5
