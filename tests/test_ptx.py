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


def test_lanes_of_one_warp_need_no_barrier() -> None:
    text = EXCHANGE.replace("bar.sync", "fence").replace("%r1, 32", "%r1, 1")
    ptx.execute(ptx.Kernel(text), [np.zeros(ptx.THREADS, np.int32)], 1)


def test_a_store_outside_of_its_array_is_an_error() -> None:
    with pytest.raises(IndexError):
        ptx.execute(ptx.Kernel(EXCHANGE), [np.zeros(ptx.THREADS - 1, np.int32)], 1)


def test_a_barrier_for_some_threads_is_an_error() -> None:
    text = EXCHANGE.replace("bar.sync", "setp.lt.u32 %p1, %r1, 32;\n @%p1 bar.sync")
    with pytest.raises(ptx.RaceError):
        ptx.execute(ptx.Kernel(text), [np.zeros(ptx.THREADS, np.int32)], 1)
    text = EXCHANGE.replace("ret", "setp.lt.u32 %p1, %r1, 32;\n @%p1 bar.sync 0;\n ret")
    with pytest.raises(AssertionError, match="barrier"):
        ptx.execute(ptx.Kernel(text), [np.zeros(ptx.THREADS, np.int32)], 1)
