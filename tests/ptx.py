"""An interpreter of PTX, the assembly language of NVIDIA GPUs, for kernels that were compiled where there is no GPU.

It executes what a compiler made of a kernel, one block after another; the threads of a block are the elements of NumPy
arrays. Threads that part execute the earlier instruction first, and meet again where their ways join. Approximations
(`ex2.approx` and the like) are NumPy's functions, but `.ftz` takes subnormal numbers for zeros, as a GPU does.

Errors that a GPU would not show: an access outside of an array, or of what nobody has written; a barrier that not all
threads reach, or not the same one; and a race of two threads for shared memory. A race whose values are equal is not
seen. What a register or shared memory holds before it is written is NaN.

The instructions are those that Mosaic's kernels consist of; another one raises NotImplementedError.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

THREADS, WARP = 128, 32
N_WARPS = THREADS // WARP

# Addresses of arrays begin at multiples of this, those of shared memory far above.
_ARRAY, _SHARED = 1 << 40, 1 << 60
# Of one block, on an H100.
_SHARED_BYTES = 227 * 1024

# A pattern that is NaN in float32 and, twice, in float64.
_UNWRITTEN = 0xFFF8DEAD

# Kinds of numbers of PTX, and what NumPy calls them.
_KINDS = {"b": "u", "u": "u", "s": "i", "f": "f"}
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s|]+")
_INSTRUCTION = re.compile(r"(?:@(!?)(%p\d+)\s+)?([\w.:]+)\s*(.*)$")
_NAMES = re.compile(r"[^{},\s]+")


class RaceError(AssertionError):
    """Two threads access a word of memory in an order that no barrier determines."""


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        guard: a predicate and the value with which a thread takes part, or None.
        parts: the operation and its qualifiers; the last one is mostly the type.
        operands: registers, numbers, addresses in brackets and vectors in braces; mostly, the first is the result.
    """

    guard: tuple[str, bool] | None
    parts: list[str]
    operands: list[str]


class Kernel:
    """A kernel, from the text of a module with one entry."""

    def __init__(self, text: str) -> None:
        body = re.sub(r"//.*", "", text[text.index(".visible .entry") :])
        body = body[body.index("\n{") + 2 : body.index("\n}")]
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self.shared: dict[str, int] = {}
        for line in body.split("\n"):
            if label := re.match(r"(\$[\w$]+):$", line.strip()):
                self.labels[label[1]] = len(self.instructions)
            elif variable := re.match(r"\s*\.shared .*\.b8 (\w+)", line):
                assert not self.shared, "more than one variable in shared memory"
                self.shared[variable[1]] = _SHARED
            elif line.strip() and not line.lstrip().startswith("."):
                self.instructions += [_parsed(part.strip()) for part in line.split(";") if part.strip()]
        operands = (name for one in self.instructions for name in _sources(one))
        self.used = {register for name in operands for register in re.findall(r"%[a-z]+\d+", name)}


def execute(kernel: Kernel, arrays: Sequence[np.ndarray], n_blocks: int) -> None:
    """Executes all blocks of a kernel whose parameters are these arrays, which change in place.

    Raises:
        RaceError: two threads race for a word of memory.
        IndexError: an access is outside of all arrays, misaligned, or of shared memory that nobody has written.
        AssertionError: not all threads wait for the same barrier.
        NotImplementedError: an instruction is not known.
    """
    for block in range(n_blocks):
        _Block(kernel, arrays, block).run()


def _parsed(text: str) -> Instruction:
    match = _INSTRUCTION.match(text)
    assert match is not None, text
    negated, predicate, operation, operands = match.groups()
    guard = None if predicate is None else (predicate, not negated)
    parts = operation.split(".")
    if not _KNOWN.issuperset(parts[1:]):
        raise NotImplementedError(operation)
    return Instruction(guard, parts, _OPERAND.findall(operands))


def _sources(instruction: Instruction) -> list[str]:
    """The operands that an instruction reads."""
    has_no_result = instruction.parts[0] in ("st", "stmatrix", "bar", "bra")
    return instruction.operands if has_no_result else instruction.operands[1:]


def _type(name: str) -> np.dtype:
    """The type of NumPy of one of PTX."""
    return np.dtype(f"{_KINDS[name[0]]}{int(name[1:]) // 8}")


class _Shared:
    """Shared memory, in words of four bytes, and after how many barriers each thread has last accessed a word."""

    def __init__(self) -> None:
        n_words = _SHARED_BYTES // 4
        self.words = np.full(n_words, _UNWRITTEN, np.uint32)
        self.is_written = np.zeros(n_words, bool)
        self.writers, self.readers = np.full((2, THREADS, n_words), -1, np.int32)
        self.n_barriers = 0

    def read(self, words: np.ndarray, threads: np.ndarray, *, is_used: bool) -> np.ndarray:
        """Words `(n, w)`, read by the threads of the same shape. What nobody uses cannot do harm."""
        if is_used:
            if not np.all(self.is_written[words]):
                raise IndexError("shared memory is read that nobody has written")
            if np.any(self._by_others(self.writers, words, threads)):
                raise RaceError("a thread reads what another one has written, without a barrier between them")
            self.readers[threads, words] = self.n_barriers
        return self.words[words]

    def write(self, words: np.ndarray, threads: np.ndarray, values: np.ndarray) -> None:
        """Writes values `(n, w)`. A value that is there already does no harm."""
        differs = self.words[words] != values
        if np.any(differs & self._by_others(self.readers, words, threads)):
            raise RaceError("a thread writes what another one has read, without a barrier between them")
        if np.any(differs & self._by_others(self.writers, words, threads)):
            raise RaceError("two threads write different values, without a barrier between them")
        self.words[words], self.is_written[words], self.writers[threads, words] = values, True, self.n_barriers
        if np.any(self.words[words] != values):
            raise RaceError("two threads write different values at the same time")

    def _by_others(self, accesses: np.ndarray, words: np.ndarray, threads: np.ndarray) -> np.ndarray:
        """Which words were accessed by other threads since the last barrier."""
        is_recent = accesses[:, words] == self.n_barriers
        own = np.take_along_axis(is_recent, threads[None], axis=0)[0]
        return np.sum(is_recent, axis=0) > own


class _Block:
    """The state of one block: registers by name, each with a number of every thread, and memory."""

    def __init__(self, kernel: Kernel, arrays: Sequence[np.ndarray], block: int) -> None:
        self.kernel, self.shared = kernel, _Shared()
        self.bytes = [array.reshape(-1).view(np.uint8) for array in arrays]
        self.thread = np.arange(THREADS)
        numbers = {"%tid.x": self.thread, "%ctaid.x": np.full(THREADS, block)}
        self.registers: dict[str, np.ndarray] = {name: own.astype(np.uint32) for name, own in numbers.items()}

    def run(self) -> None:
        """From the first instruction to the return of all threads."""
        at, is_waiting, has_ended = np.zeros(THREADS, int), np.zeros(THREADS, bool), np.zeros(THREADS, bool)
        barrier = np.zeros(THREADS, int)
        while not np.all(has_ended):
            is_active = ~has_ended & ~is_waiting
            if not np.any(is_active):
                if not np.all(is_waiting):
                    raise AssertionError("a barrier waits for threads that have ended")
                if np.any(barrier != barrier[0]):
                    raise AssertionError("threads wait for different barriers")
                is_waiting[:] = False
                self.shared.n_barriers += 1
                continue
            first = np.min(at[is_active])
            taking_part = is_active & (at == first)
            instruction = self.kernel.instructions[first]
            at[taking_part] += 1
            if instruction.guard is not None:
                predicate, wanted = instruction.guard
                taking_part &= self.registers[predicate] == wanted
            match instruction.parts[0]:
                case "bra":
                    at[taking_part] = self.kernel.labels[instruction.operands[0]]
                case "ret":
                    has_ended |= taking_part
                case "bar":
                    number, *count = (self._get(operand, "u32") for operand in instruction.operands)
                    if count and np.any(count[0] != THREADS):
                        raise NotImplementedError("a barrier for some threads")
                    _whole_warps(taking_part)
                    barrier, is_waiting = np.where(taking_part, number, barrier), is_waiting | taking_part
                case "fence":
                    pass
                case _ if np.any(taking_part):
                    self._execute(instruction, taking_part)

    def _execute(self, instruction: Instruction, mask: np.ndarray) -> None:
        name = instruction.parts[0]
        if name in _METHODS:
            _METHODS[name](self, instruction, mask)
        elif name in _ARITHMETIC:
            self._compute(instruction, mask)
        else:
            raise NotImplementedError(".".join(instruction.parts))

    def _compute(self, instruction: Instruction, mask: np.ndarray) -> None:
        (name, *qualifiers), (result, *operands) = instruction.parts, instruction.operands
        kind = qualifiers[-1]
        if (
            (name == "div" and kind[0] != "f")
            or (name == "bfe" and kind[0] != "u")
            or (name, qualifiers[0]) == ("mad", "wide")
        ):
            raise NotImplementedError(".".join(instruction.parts))
        # The second operand of a shift is a number of bits.
        kinds = [kind, "b32"] if name in ("shl", "shr") else [kind] * len(operands)
        given = [self._get(operand, own) for operand, own in zip(operands, kinds, strict=True)]
        if "wide" in qualifiers:
            given = [number.astype(f"{number.dtype.kind}8") for number in given]
        if "ftz" in qualifiers:
            given = [_flushed(number) for number in given]
        with np.errstate(all="ignore"):
            found = _ARITHMETIC[name](*given).astype(given[0].dtype)
        if name in ("max", "min") and kind[0] == "f" and "NaN" not in qualifiers:
            found = np.where(np.isnan(given[0]), given[1], np.where(np.isnan(given[1]), given[0], found))
        self._put(result, _flushed(found) if "ftz" in qualifiers else found, mask)

    def _move(self, instruction: Instruction, mask: np.ndarray) -> None:
        result, operand = instruction.operands
        if operand.startswith("{"):
            low, high = (self._get(half, "b32").astype(np.uint64) for half in _NAMES.findall(operand))
            self._put(result, low | high << np.uint64(32), mask)
        elif result.startswith("{"):
            halves = self._get(operand, "b64").view(np.uint32).reshape(THREADS, 2).T
            for register, half in zip(_NAMES.findall(result), halves, strict=True):
                self._put(register, half.copy(), mask)
        else:
            self._put(result, self._get(operand, instruction.parts[-1]), mask)

    def _convert(self, instruction: Instruction, mask: np.ndarray) -> None:
        result, operand = instruction.operands
        *qualifiers, to, own = instruction.parts
        given = self._get(operand, own)
        rounded = next((_TO_WHOLE[part] for part in qualifiers if part in _TO_WHOLE), np.positive)
        with np.errstate(all="ignore"):
            self._put(result, rounded(given).astype(_type(to)), mask)

    def _set_predicate(self, instruction: Instruction, mask: np.ndarray) -> None:
        result, a, b, *third = instruction.operands
        _, comparison, *joined, kind = instruction.parts
        found = _compared(comparison, self._get(a, kind), self._get(b, kind))
        if third:
            found = _LOGIC[joined[0]](found, self._get(third[0], "pred"))
        self._put(result, found, mask)

    def _select(self, instruction: Instruction, mask: np.ndarray) -> None:
        (result, a, b, predicate), kind = instruction.operands, instruction.parts[-1]
        self._put(result, np.where(self.registers[predicate], self._get(a, kind), self._get(b, kind)), mask)

    def _shuffle(self, instruction: Instruction, mask: np.ndarray) -> None:
        result, operand, number, *limits = instruction.operands
        if limits != ["31", "-1"]:
            raise NotImplementedError("a shuffle of some lanes")
        _whole_warps(mask)
        lane = np.arange(WARP)
        other = lane ^ int(number) if instruction.parts[2] == "bfly" else np.full(WARP, int(number))
        self._put(result, self._get(operand, "b32").reshape(N_WARPS, WARP)[:, other].ravel(), mask)

    def _elect(self, instruction: Instruction, mask: np.ndarray) -> None:
        _whole_warps(mask)
        self._put(instruction.operands[1], self.thread % WARP == 0, mask)

    def _get(self, operand: str, kind: str) -> np.ndarray:
        """The numbers of all threads, `(128,)`."""
        if kind == "pred":
            if operand.startswith("%"):
                return self.registers[operand]
            return ~self.registers[operand[1:]] if operand.startswith("!") else np.full(THREADS, int(operand) != 0)
        dtype = _type(kind)
        if operand.startswith("%"):
            value = self.registers[operand]
            return value.view(dtype) if value.dtype.itemsize == dtype.itemsize else value.astype(dtype)
        if operand in self.kernel.shared:
            return np.full(THREADS, self.kernel.shared[operand], np.uint64).view(dtype)
        if operand[:2] in ("0f", "0d"):
            return np.full(THREADS, np.frombuffer(bytes.fromhex(operand[2:])[::-1], dtype)[0])
        return np.full(THREADS, int(operand, 0)).astype(dtype)

    def _put(self, register: str, value: np.ndarray, mask: np.ndarray) -> None:
        bits = value if value.dtype == bool else value.view(f"u{value.dtype.itemsize}")
        if register not in self.registers:
            unwritten = ~bits if bits.dtype == bool else np.full(2 * THREADS, _UNWRITTEN, np.uint32).view(bits.dtype)
            self.registers[register] = unwritten[:THREADS]
        self.registers[register] = np.where(mask, bits, self.registers[register])

    def _addresses(self, operand: str) -> np.ndarray:
        base, _, offset = operand.strip("[]").partition("+")
        return self._get(base, "b64").astype(np.int64) + int(offset or 0)

    def _load(self, instruction: Instruction, mask: np.ndarray) -> None:
        into, address = instruction.operands
        if instruction.parts[1] == "param::entry":
            number = int(address.strip("[]").rsplit("_", 1)[1])
            self._put(into, np.full(THREADS, (number + 1) * _ARRAY, np.uint64), mask)
            return
        registers, dtype = _NAMES.findall(into), _type(instruction.parts[-1])
        width, addresses = dtype.itemsize * len(registers), self._addresses(address)
        found = np.zeros((THREADS, width), np.uint8)
        if addresses[mask][0] >= _SHARED:
            words = _words(addresses[mask], width)
            is_used = any(register in self.kernel.used for register in registers)
            found[mask] = self.shared.read(words, self._threads(mask, words), is_used=is_used).view(np.uint8)
        else:
            array, places = self._places(addresses[mask], width)
            found[mask] = array[places]
        for i, register in enumerate(registers):
            own = found[:, i * dtype.itemsize : (i + 1) * dtype.itemsize]
            self._put(register, np.ascontiguousarray(own).view(dtype).ravel(), mask)

    def _store(self, instruction: Instruction, mask: np.ndarray) -> None:
        address, given = instruction.operands
        values = [np.ascontiguousarray(self._get(name, instruction.parts[-1])) for name in _NAMES.findall(given)]
        rows = np.concatenate([value.view(np.uint8).reshape(THREADS, -1) for value in values], axis=1)[mask]
        addresses = self._addresses(address)[mask]
        if addresses[0] >= _SHARED:
            words = _words(addresses, rows.shape[1])
            self.shared.write(words, self._threads(mask, words), np.ascontiguousarray(rows).view(np.uint32))
        else:
            array, places = self._places(addresses, rows.shape[1])
            array[places] = rows
            if np.any(array[places] != rows):
                raise RaceError("two threads write different values at the same time")

    def _threads(self, mask: np.ndarray, words: np.ndarray) -> np.ndarray:
        """The threads that access words `(n, w)`."""
        return np.broadcast_to(self.thread[mask][:, None], words.shape)

    def _places(self, addresses: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The array to which addresses belong, and the places of their bytes."""
        number = int(addresses[0]) // _ARRAY - 1
        places = (addresses - (number + 1) * _ARRAY)[:, None] + np.arange(width)
        if not 0 <= number < len(self.bytes) or np.min(places) < 0 or np.max(places) >= len(self.bytes[number]):
            raise IndexError("an address is outside of all arrays")
        if np.any(addresses % width):
            raise IndexError("an address is misaligned")
        return self.bytes[number], places

    def _load_matrix(self, instruction: Instruction, mask: np.ndarray) -> None:
        into, address = instruction.operands
        registers = _NAMES.findall(into)
        is_used = any(register in self.kernel.used for register in registers)
        for register, words in zip(registers, self._matrices(address, len(registers), mask), strict=True):
            self._put(register, self.shared.read(words, self.thread.reshape(-1, 4), is_used=is_used).ravel(), mask)

    def _store_matrix(self, instruction: Instruction, mask: np.ndarray) -> None:
        address, given = instruction.operands
        registers = _NAMES.findall(given)
        for register, words in zip(registers, self._matrices(address, len(registers), mask), strict=True):
            self.shared.write(words, self.thread.reshape(-1, 4), self._get(register, "b32").reshape(-1, 4))

    def _matrices(self, address: str, number: int, mask: np.ndarray) -> list[np.ndarray]:
        """Words `(32, 4)` of each matrix: eight rows of 16 bytes in each warp, of which eight threads know where.

        Four threads after another hold the words of a row.
        """
        if not np.all(mask):
            raise NotImplementedError("a matrix of some warps")
        rows = self._addresses(address).reshape(N_WARPS, 4, 8)
        return [_words(rows[:, i].ravel(), 16) for i in range(number)]


def _words(addresses: np.ndarray, width: int) -> np.ndarray:
    """Words of shared memory `(n, w)` at addresses of so many bytes."""
    places = addresses - _SHARED
    if np.any(places % width):
        raise IndexError("an address of shared memory is misaligned")
    if np.min(places) < 0 or np.max(places) + width > _SHARED_BYTES:
        raise IndexError("an address is outside of shared memory")
    return places[:, None] // 4 + np.arange(width // 4)


def _whole_warps(mask: np.ndarray) -> None:
    """Raises AssertionError if some lanes of a warp take part in what all of them have to do together."""
    lanes = mask.reshape(N_WARPS, WARP)
    if np.any(np.any(lanes, axis=1) != np.all(lanes, axis=1)):
        raise AssertionError("lanes of a warp have parted where it needs all of them")


def _flushed(number: np.ndarray) -> np.ndarray:
    """Subnormal numbers as zeros of their sign."""
    is_subnormal = np.abs(number) < np.finfo(number.dtype).tiny
    return np.where(is_subnormal, np.copysign(np.zeros_like(number), number), number)


_METHODS: dict[str, Callable[[_Block, Instruction, np.ndarray], None]] = {
    "ld": _Block._load,
    "st": _Block._store,
    "ldmatrix": _Block._load_matrix,
    "stmatrix": _Block._store_matrix,
    "mov": _Block._move,
    "cvt": _Block._convert,
    "setp": _Block._set_predicate,
    "selp": _Block._select,
    "shfl": _Block._shuffle,
    "elect": _Block._elect,
}
_LOGIC: dict[str, Callable[..., Any]] = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
_COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_TO_WHOLE = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}

# What may stand beside the name of an operation; another qualifier would have a meaning that is not known here.
_KNOWN = {
    *("b16", "b32", "b64", "u32", "u64", "s32", "s64", "f32", "f64", "pred", "v2", "v4", "m8n8", "x1", "x2", "x4"),
    *("rn", "approx", "ftz", "full", "lo", "wide", "NaN", "sync", "bfly", "idx", "aligned", "to", "uni", "nan", "num"),
    *("shared", "global", "param::entry", "proxy", "async", "shared::cta", "mbarrier_init", "release", "cluster"),
    *(*_LOGIC, *_TO_WHOLE, *_COMPARISONS, *(f"{name}u" for name in _COMPARISONS)),
}


def _compared(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Comparisons, of which those with `u` are true if a number is NaN, and those without are false."""
    is_nan = np.isnan(a) | np.isnan(b)
    if name in ("nan", "num"):
        return is_nan == (name == "nan")
    return np.where(is_nan, name.endswith("u"), _COMPARISONS[name.removesuffix("u")](a, b))


def _fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    wider = np.float64 if a.dtype == np.float32 else np.longdouble
    return a.astype(wider) * b + c


def _bits(a: np.ndarray, first: np.ndarray, n: np.ndarray) -> np.ndarray:
    return (a >> first) & ((np.ones_like(a) << n) - 1)


_ARITHMETIC: dict[str, Callable[..., Any]] = _LOGIC | {
    "cvta": np.positive,
    "not": np.invert,
    "shl": lambda a, n: a << n.astype(a.dtype),
    "shr": lambda a, n: a >> n.astype(a.dtype),
    "bfe": _bits,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mad": lambda a, b, c: a * b + c,
    "fma": _fused,
    "neg": np.negative,
    "abs": np.abs,
    "max": np.maximum,
    "min": np.minimum,
    "div": np.divide,
    "rcp": np.reciprocal,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "ex2": np.exp2,
    "lg2": np.log2,
}
