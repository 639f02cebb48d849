# ruff: noqa: E501 (lines are as long as the compilers write them)
"""The reader of compiled programs, on lines as the two compilers write them."""

import pytest

from taichu_jax.compiled import hlo
from taichu_jax.compiled.collectives import Total, collectives, totals
from taichu_jax.compiled.work import instruction_flops, positions, work

ADD = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
"""


def module(entry, more="", head="HloModule jit_step, is_scheduled=true"):
    lines = "\n".join(f"  {line}" for line in entry.strip().splitlines())
    return hlo.parse(f"{head}\n{more}{ADD}\nENTRY %main (p: f32[8]) -> f32[8] {{\n{lines}\n}}\n")


def the_collectives(entry, more="", devices=8):
    return collectives(module(entry, more), devices)


def test_a_line_with_tuples_layouts_comments_and_memory_spaces():
    line = (
        "  ROOT %all-gather-start.1 = (bf16[4,32]{1,0:T(4,128)(2,1)}, /*index=1*/f32[8,32]{1,0:T(8,128)S(1)}, "
        "pred[], u4[3]) all-gather-start(%p.1, %p.2), channel_id=3, dimensions={0}"
    )
    instruction = hlo.parse_line(line)
    assert (instruction.name, instruction.opcode, instruction.root) == (
        "all-gather-start.1",
        "all-gather-start",
        True,
    )
    assert [a.size for a in instruction.arrays] == [256, 1024, 1, 2]
    assert [a.space for a in instruction.arrays] == [0, 1, 0, 0]
    assert instruction.operands == ("p.1", "p.2")
    assert instruction.attribute(r"channel_id=(\d+)") == "3"


def test_other_lines_are_no_instructions():
    assert hlo.parse_line("263 {file_location_id=149 parent_frame_id=8}") is None
    assert hlo.parse_line("") is None
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule x\n")


def test_what_output_takes_over_which_argument():
    head = (
        "HloModule j, input_output_alias={ {0}: (1, {}, may-alias), {2}: (0, {}, must-alias) }, "
        "entry_computation_layout={(f32[8]{0})->f32[8]{0}}"
    )
    assert module("ROOT %p = f32[8]{0} parameter(0)", head=head).aliased == {0: 1, 2: 0}


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1},{2,3}}", 2),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
        ("replica_groups={}", 8),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=4], device_ids=([2,4]T(1,0)) {'a'}", 2),
        ("replica_groups=mesh['a'=2,'c'=4] {'a','c'}", 8),
        ("replica_groups=mesh['a'=8] {'a':(2)4}", 4),
    ],
)
def test_the_ways_to_write_groups(groups, size):
    (one,) = the_collectives(
        f"""
        %p = f32[8]{{0}} parameter(0)
        ROOT %r = f32[8]{{0}} all-reduce(%p), channel_id=1, {groups}, to_apply=%add
        """
    )
    assert (one.group, one.payload, one.wire) == (size, 32, 2 * (size - 1) / size * 32)


def test_groups_in_another_form_are_an_error():
    line = "ROOT %r = f32[8]{0} all-reduce(%p), replica_groups=new[7], to_apply=%add"
    with pytest.raises(ValueError, match="replica_groups"):
        the_collectives(f"%p = f32[8]{{0}} parameter(0)\n{line}")


def test_groups_of_one_are_not_collectives():
    line = "ROOT %r = f32[8]{0} all-reduce(%p), replica_groups={{0},{1}}, to_apply=%add"
    assert the_collectives(f"%p = f32[8]{{0}} parameter(0)\n{line}", devices=2) == []


def test_payload_and_what_is_sent_by_kind():
    found = the_collectives(
        """
        %p = f32[8]{0} parameter(0)
        %q = bf16[8]{0} parameter(1)
        %g = f32[32]{0} all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
        %s = f32[2]{0} reduce-scatter(%p), channel_id=2, replica_groups=[2,4]<=[8], to_apply=%add
        %t = f32[8]{0} all-to-all(%p), channel_id=3, replica_groups=[2,4]<=[8], dimensions={0}
        %c = f32[8]{0} collective-permute(%p), channel_id=4, source_target_pairs={{0,1},{1,0}}
        %i = f32[8]{0} collective-permute(%p), channel_id=5, source_target_pairs={{0,0},{1,1}}
        ROOT %r = (f32[8]{0}, bf16[8]{0}) all-reduce(%p, %q), channel_id=6, replica_groups=[2,4]<=[8], to_apply=%add
        """
    )
    assert totals(found) == {
        "all-gather": Total(1, 128, 96.0),
        "reduce-scatter": Total(1, 32, 24.0),
        "all-to-all": Total(1, 32, 24.0),
        "collective-permute": Total(1, 32, 32.0),
        "all-reduce": Total(1, 48, 72.0),
    }


def test_start_and_done_are_one():
    found = the_collectives(
        """
        %p = f32[8]{0} parameter(0)
        %s = (f32[8]{0}, f32[16]{0}) all-gather-start(%p), channel_id=1, replica_groups={{0,1}}, dimensions={0}
        %d = f32[16]{0} all-gather-done(%s)
        %t = f32[8]{0} all-reduce-start(%p), channel_id=2, replica_groups={{0,1}}, to_apply=%add
        %e = f32[8]{0} all-reduce-done(%t)
        %w = ((f32[8]{0}), f32[4]{0}) async-start(%p), calls=%wrapped
        %u = ((f32[8]{0}), f32[4]{0}) async-update(%w), calls=%wrapped
        ROOT %v = f32[4]{0} async-done(%u), calls=%wrapped
        """,
        """
%wrapped (x: f32[8]) -> f32[4] {
  %x = f32[8]{0} parameter(0)
  ROOT %y = f32[4]{0} reduce-scatter(%x), channel_id=3, replica_groups={{0,1}}, to_apply=%add
}
""",
    )
    assert {k: (t.count, t.payload) for k, t in totals(found).items()} == {
        "all-gather": (1, 64),
        "all-reduce": (1, 32),
        "reduce-scatter": (1, 32),
    }


def test_parts_of_one_collective_count_once_and_a_sliced_all_reduce_is_a_reduce_scatter():
    """As the TPU compiler writes them: one channel in several fusions."""
    fused = """
%part{n} (x: bf16[4]) -> bf16[8] {{
  %x = bf16[4]{{0}} parameter(0)
  ROOT %g = bf16[8]{{0}} all-gather(%x), channel_id=7, replica_groups={{{{0,1}}}}, dimensions={{0}}
}}
"""
    scatter = """
%all-reduce-scatter (x: bf16[8]) -> bf16[4] {
  %x = bf16[8]{0} parameter(0)
  %r = bf16[8]{0} all-reduce(%x), channel_id=8, replica_groups={{0,1}}, to_apply=%add
  %zero = u32[] constant(0)
  ROOT %d = bf16[4]{0} dynamic-slice(%r, %zero), dynamic_slice_sizes={4}
}
"""
    found = the_collectives(
        """
        %p = bf16[4]{0} parameter(0)
        %a = bf16[8]{0} fusion(%p), kind=kCustom, calls=%part1
        %b = bf16[8]{0} fusion(%p), kind=kCustom, calls=%part2
        ROOT %c = bf16[4]{0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter
        """,
        fused.format(n=1) + fused.format(n=2) + scatter,
    )
    assert totals(found) == {"all-gather": Total(1, 16, 8.0), "reduce-scatter": Total(1, 16, 8.0)}


LOOP = """
%body (s: (s32[], f32[8])) -> (s32[], f32[8]) {
  %s = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[8]{0} get-tuple-element(%s), index=1
  %one = s32[] constant(STEP)
  %moved = s32[] copy(%i)
  %next = s32[] add(%moved, %one)
  %r = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  ROOT %out = (s32[], f32[8]{0}) tuple(%next, %r)
}

%condition (s: (s32[], f32[8])) -> pred[] {
  %limit = s32[] constant(12)
  %s = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}
"""
INTO_LOOP = """
%p = f32[8]{0} parameter(0)
%first = s32[] constant(0)
%copied = s32[] copy(%first)
%start = (s32[], f32[8]{0}) tuple(%copied, %p)
ROOT %w = (s32[], f32[8]{0}) while(%start), condition=%condition, body=%bodyTOLD
"""


@pytest.mark.parametrize(
    ("step", "told", "count"),
    [
        ("1", "", 12),  # as on TPUs: read off the loop
        ("5", "", 3),
        ("1", ', backend_config={"known_trip_count":{"n":"7"}}', 7),  # as on CPUs
    ],
)
def test_a_loop_counts_by_its_trips(step, told, count):
    found = the_collectives(INTO_LOOP.replace("TOLD", told), LOOP.replace("STEP", step))
    assert [c.times for c in found] == [count]


def test_a_loop_of_unknown_length_counts_once_and_is_said():
    unknown = INTO_LOOP.replace("%copied = s32[] copy(%first)", "%copied = s32[] parameter(1)")
    read = module(unknown.replace("TOLD", ""), LOOP.replace("STEP", "1"))
    assert [c.times for c in collectives(read, 2)] == [1]
    assert work(read).unknown_loops == 1


def test_loops_in_loops_multiply():
    outer = """
%outer (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]{0}) parameter(0)
  %zero = s32[] constant(0)
  %y = f32[8]{0} get-tuple-element(%t), index=1
  %again = (s32[], f32[8]{0}) tuple(%zero, %y)
  ROOT %v = (s32[], f32[8]{0}) while(%again), condition=%condition, body=%body
}
"""
    entry = INTO_LOOP.replace("body=%body", "body=%outer")
    entry = entry.replace("TOLD", ', backend_config={"known_trip_count":{"n":"5"}}')
    (found,) = the_collectives(entry, LOOP.replace("STEP", "1") + outer)
    assert found.times == 60


def test_operations_of_products_and_convolutions():
    read = module(
        """
        %a = bf16[8,16]{1,0} parameter(0)
        %b = bf16[16,32]{1,0} parameter(1)
        %d = bf16[8,32]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
        %c = bf16[8,32]{1,0} convolution(%a, %b), dim_labels=bf_io->bf
        %q = bf16[16,64,2,32]{3,2,1,0} parameter(2)
        %k = bf16[16,64,2,32]{3,2,1,0} parameter(3)
        %s = bf16[16,2,64,64]{3,2,1,0} convolution(%q, %k), window={size=16x2 stride=15x1 lhs_dilate=16x2}, dim_labels=0b1f_0o1i->01bf
        %x = f32[4,100,8]{2,1,0} parameter(4)
        %w = f32[3,8,6]{2,1,0} parameter(5)
        ROOT %t = f32[4,50,6]{2,1,0} convolution(%x, %w), window={size=3 stride=2 pad=1_0}, dim_labels=b0f_0io->b0f
        """
    )
    flops = {
        i.name: instruction_flops(read.entry, i)
        for i in read.entry.instructions
        if i.opcode in ("dot", "convolution")
    }
    assert flops["d"] == flops["c"] == 2 * 8 * 16 * 32
    assert flops["s"] == 2 * (16 * 2) * 64 * 64 * 32  # batch and heads as windows with holes
    assert flops["t"] == 2 * 4 * (50 * 3 - 1) * 8 * 6  # one window reaches into the padding


def test_positions_against_a_loop():
    for size, kernel, stride, padding, left, right in [
        (10, 3, 2, 1, 1, 1),
        (7, 4, 1, 2, 3, 1),
        (9, 2, 3, 0, 1, 2),
        (5, 5, 4, 0, 5, 1),
    ]:
        dilated = [i % left == 0 for i in range((size - 1) * left + 1)]
        count, out = 0, 6
        for o in range(out):
            for k in range(kernel):
                at = o * stride + k * right - padding
                count += 0 <= at < len(dilated) and dilated[at]
        assert positions(size, out, kernel, stride, padding, left, right) == count


def test_bytes_of_main_memory():
    fusions = """
%slices (x: f32[64], i: s32[]) -> f32[8] {
  %x = f32[64]{0} parameter(0)
  %i = s32[] parameter(1)
  %d = f32[8]{0} dynamic-slice(%x, %i), dynamic_slice_sizes={8}
  ROOT %n = f32[8]{0} negate(%d)
}

%updates (x: f32[64], u: f32[8], i: s32[]) -> f32[64] {
  %x = f32[64]{0} parameter(0)
  %u = f32[8]{0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %d = f32[64]{0} dynamic-update-slice(%x, %u, %i)
}
"""
    read = module(
        """
        %p = f32[64]{0} parameter(0)
        %i = s32[] parameter(1)
        %on_chip = f32[64]{0:S(1)} negate(%p)
        %free = f32[64]{0} bitcast(%p)
        %a = f32[8]{0} fusion(%p, %i), kind=kLoop, calls=%slices
        ROOT %b = f32[64]{0} fusion(%p, %a, %i), kind=kLoop, calls=%updates
        """,
        fusions,
    )
    reads_all, slice_read_and_written, update = 256, 32 + 4 + 32, 32 + 4 + 32
    assert work(read).bytes == reads_all + slice_read_and_written + update
