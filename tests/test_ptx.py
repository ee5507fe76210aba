"""The interpreter of PTX finds what it is for."""

import numpy as np
import ptx
import pytest

# Every thread tells its number to one of another warp.
EXCHANGE = """
.visible .entry exchange(.param .u64 a)
{
	.reg .b32 	%r<9>;
	.shared .align 16 .b8 memory[512];
	ld.param::entry.b64 	%rd1, [exchange_param_0];
	mov.u32 	%r1, %tid.x;
	mul.wide.u32 	%rd2, %r1, 4;
	mov.b64 	%rd3, memory;
	add.s64 	%rd4, %rd3, %rd2;
	st.shared.b32 	[%rd4], %r1;
	bar.sync 	0;
	xor.b32 	%r2, %r1, 32;
	mul.wide.u32 	%rd5, %r2, 4;
	add.s64 	%rd6, %rd3, %rd5;
	ld.shared.b32 	%r3, [%rd6];
	add.s64 	%rd7, %rd1, %rd2;
	st.global.b32 	[%rd7], %r3;
	ret;
}
"""


def test_threads_exchange_numbers() -> None:
    found = np.zeros(ptx.THREADS, np.int32)
    ptx.execute(ptx.Kernel(EXCHANGE), [found], 1)
    np.testing.assert_array_equal(found, np.arange(ptx.THREADS) ^ 32)


def test_a_missing_barrier_is_a_race() -> None:
    with pytest.raises(ptx.RaceError):
        ptx.execute(ptx.Kernel(EXCHANGE.replace("bar.sync", "fence")), [np.zeros(ptx.THREADS, np.int32)], 1)


def test_lanes_of_one_warp_need_a_barrier_too() -> None:
    text = EXCHANGE.replace("bar.sync", "fence").replace("%r1, 32", "%r1, 1")
    with pytest.raises(ptx.RaceError):
        ptx.execute(ptx.Kernel(text), [np.zeros(ptx.THREADS, np.int32)], 1)


def test_an_exchange_of_lanes_needs_none() -> None:
    text = EXCHANGE.replace("ld.shared.b32 	%r3, [%rd6]", "shfl.sync.bfly.b32 %r3, %r1, 1, 31, -1")
    ptx.execute(ptx.Kernel(text), [found := np.zeros(ptx.THREADS, np.int32)], 1)
    np.testing.assert_array_equal(found, np.arange(ptx.THREADS) ^ 1)


ONE_WARP = "setp.lt.u32 %p1, %r1, 32;\n @%p1 "
MUTATIONS = {
    "a store outside of its array": ("add.s64 	%rd7, %rd1", "add.s64 %rd7, 512", IndexError),
    "an address that is misaligned": ("[%rd6]", "[%rd6+2]", IndexError),
    "an address outside of shared memory": ("[%rd6]", "[%rd6+300000]", IndexError),
    "shared memory that nobody has written": ("[%rd6]", "[%rd6+512]", IndexError),
    "a barrier for some threads only": ("ret", ONE_WARP + "bar.sync 0;\n ret", AssertionError),
    "different barriers": ("bar.sync 	0", "shr.u32 %r9, %r1, 5;\n bar.sync %r9", AssertionError),
    "a barrier in some lanes of a warp": ("bar.sync", "setp.lt.u32 %p1, %r1, 8;\n @%p1 bar.sync", AssertionError),
    "a barrier that is not for all": ("bar.sync 	0", "bar.sync 0, 64", NotImplementedError),
    "a shuffle in some lanes": (
        "xor",
        "setp.lt.u32 %p1, %r1, 8;\n @%p1 shfl.sync.bfly.b32 %r3, %r1, 1, 31, -1;\n xor",
        AssertionError,
    ),
    "numbers of one place": ("[%rd7]", "[%rd1]", ptx.RaceError),
    "an unknown instruction": ("xor", "popc", NotImplementedError),
    "an unknown qualifier": ("mul.wide.u32 	%rd5", "mul.hi.u32 %rd5", NotImplementedError),
}


@pytest.mark.parametrize(("old", "new", "error"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_fault_is_an_error(old: str, new: str, error: type[Exception]) -> None:
    assert old in EXCHANGE
    with pytest.raises(error):
        ptx.execute(ptx.Kernel(EXCHANGE.replace(old, new, 1)), [np.zeros(ptx.THREADS, np.int32)], 1)


def test_a_register_is_unknown_where_nobody_has_written_it() -> None:
    text = EXCHANGE.replace("ld.shared", "setp.eq.u32 %p1, %r1, 0;\n @%p1 ld.shared")
    ptx.execute(ptx.Kernel(text), [found := np.zeros(ptx.THREADS, np.float32)], 1)
    assert np.all(np.isnan(found[1:]))


def test_subnormal_numbers_are_zeros_where_the_instruction_says_so() -> None:
    text = EXCHANGE.replace("st.global.b32 	[%rd7], %r3", "lg2.approx.ftz.f32 %r4, %r1;\n st.global.b32 [%rd7], %r4")
    ptx.execute(ptx.Kernel(text), [found := np.zeros(ptx.THREADS, np.float32)], 1)
    np.testing.assert_array_equal(found, -np.inf)


@pytest.mark.parametrize(("comparison", "expected"), [("leu", [1, 1, 0]), ("le", [0, 1, 0]), ("nan", [1, 0, 0])])
def test_comparisons_with_nan(comparison: str, expected: list[int]) -> None:
    found = ptx._compared(comparison, np.array([np.nan, 1.0, 2.0]), np.ones(3))
    np.testing.assert_array_equal(found, np.array(expected, bool))
