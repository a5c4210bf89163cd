"""The latent step of a CPU, compiled: loops over the memory of tensors, which are told by their addresses.

To hand a tensor over as an array costs more than all that is done here; a number costs next to nothing. Everything is
compiled when this is imported, and not in the first step of a request. Rows are moved as bytes: nothing is computed
with them, so no type is too odd. An address 0 is that of nothing. Slots and ``last`` are int64, ``kept`` is bool, all
other numbers in memory are int32; lengths and strides are in numbers, those of rows in bytes.
"""
# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator, no-untyped-call, no-untyped-def, misc"

from llvmlite.binding import ffi
from numba import njit, types
from numba.extending import intrinsic

# Before a CPU worker starts, vLLM asks all that modules hold for their `vars`. This object answers to any name with a
# function of llvmlite's, and that would end the worker.
ffi.lib._fntab.setdefault("__dict__", {})


def _pointer_to(element):
    @intrinsic
    def pointer(_, address):
        def cast(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), cast

    return pointer


_bytes, _int16 = _pointer_to(types.uint8), _pointer_to(types.int16)
_int32, _int64 = _pointer_to(types.int32), _pointer_to(types.int64)


def _compiled(returned, num_numbers):
    return njit(f"{returned}({', '.join(['int64'] * num_numbers)})", error_model="numpy")


@_compiled("void", 3)
def _copy(source, target, num_bytes):
    read, written = _bytes(source), _bytes(target)
    for at in range(num_bytes):
        written[at] = read[at]


@_compiled("void", 16)
def inject(
    num_requests,
    ids,
    embeds,
    embeds_stride,
    seq_lens,
    table,
    table_stride,
    slots,
    feedback,
    row_bytes,
    phase,
    step_phase,
    block_size,
    start_id,
    pad_id,
    size,
):
    for row in range(num_requests):
        after = 0
        if _int64(slots)[row] >= 0:
            before = _int32(seq_lens)[row] - 2  # the position before this token's
            if _int32(ids)[row] == start_id:
                after = 1
            elif _int32(ids)[row] == pad_id and before >= 0:
                block = _int32(table)[row * table_stride + before // block_size]
                previous = _int32(phase)[block]
                if 1 <= previous <= size:
                    after = previous + 1
                    _copy(feedback + block * row_bytes, embeds + row * embeds_stride, row_bytes)
        _int32(step_phase)[row] = after


@_compiled("boolean", 13)
def commit(
    num_tokens,
    num_requests,
    hidden,
    hidden_stride,
    phase_after,
    slots,
    kept,
    last,
    feedback,
    row_bytes,
    phase,
    request_phase,
    block_size,
):
    """Whether a request is inside a block after it."""
    for row in range(num_tokens):
        slot = _int64(slots)[row]
        if slot >= 0 and (kept == 0 or _bytes(kept)[row]):
            block = slot // block_size
            _int32(phase)[block] = _int32(phase_after)[row]
            _copy(hidden + row * hidden_stride, feedback + block * row_bytes, row_bytes)
    is_inside = False
    for row in range(num_requests):
        of_last = _int32(phase_after)[_int64(last)[row] if last != 0 else row]
        _int32(request_phase)[row] = of_last
        is_inside = is_inside or of_last != 0
    return is_inside


@_compiled("void", 8)
def mask_logits(num_rows, num_tokens, logits, row_bytes, tokens, rows, item_bytes, infinity):
    """infinity: the bits of minus infinity. ``rows`` and ``tokens`` are int64; without the former all are meant."""
    for at in range(num_rows):
        row = _int64(rows)[at] if rows != 0 else at
        for token in range(num_tokens):
            where = logits + row * row_bytes + _int64(tokens)[token] * item_bytes
            if item_bytes == 4:
                _int32(where)[0] = infinity
            else:
                _int16(where)[0] = infinity


@_compiled("void", 9)
def decide(num_rows, chosen, phase, decided, is_learned, size, start_id, pad_id, end_id):
    for row in range(num_rows):
        token, before = _int32(chosen)[row], _int32(phase)[row]
        stands = is_learned and token in (start_id, end_id)
        if before >= 1 and not stands:
            token = end_id if before > size else pad_id
        _int32(decided)[row] = token
