"""The latent step of a CPU, compiled: loops over the memory of tensors, which are told by their addresses.

To hand a tensor over as an array costs more than all that is done here; a number costs next to nothing. Everything is
compiled when this is imported, and not in the first step of a request. Rows are moved as bytes: nothing is computed
with them, so no type is too odd. An address 0 is that of nothing. Slots, ``last`` and what ``mask_logits`` is told are
int64, ``kept`` is bool, all other numbers in memory are int32. ``table_stride`` is in numbers, other strides in bytes.

What a number in memory points to is looked at before it is read or written: where it lies outside, the loop ends and
returns ``OUTSIDE``.
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


OUTSIDE = -1
_bytes, _int16 = _pointer_to(types.uint8), _pointer_to(types.int16)
_int32, _int64 = _pointer_to(types.int32), _pointer_to(types.int64)


def _compiled(returned, num_numbers):
    return njit(f"{returned}({', '.join(['int64'] * num_numbers)})", error_model="numpy")


@_compiled("void", 3)
def _copy(source, target, num_bytes):
    read, written = _bytes(source), _bytes(target)
    for at in range(num_bytes):
        written[at] = read[at]


@_compiled("int64", 18)
def inject(
    num_requests,
    ids,
    embeds,
    embeds_stride,
    seq_lens,
    table,
    table_stride,
    table_width,
    slots,
    feedback,
    row_bytes,
    phase,
    num_state_rows,
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
                at = before // block_size
                block = _int32(table)[row * table_stride + at] if at < table_width else OUTSIDE
                if block < 0 or block >= num_state_rows:
                    return OUTSIDE
                previous = _int32(phase)[block]
                if 1 <= previous <= size:
                    after = previous + 1
                    _copy(feedback + block * row_bytes, embeds + row * embeds_stride, row_bytes)
        _int32(step_phase)[row] = after
    return 0


@_compiled("int64", 14)
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
    num_state_rows,
    request_phase,
    block_size,
):
    """1 if a request is inside a block after it, else 0."""
    for row in range(num_tokens):
        slot = _int64(slots)[row]
        if slot >= 0 and (kept == 0 or _bytes(kept)[row]):
            block = slot // block_size
            if block >= num_state_rows:
                return OUTSIDE
            _int32(phase)[block] = _int32(phase_after)[row]
            _copy(hidden + row * hidden_stride, feedback + block * row_bytes, row_bytes)
    is_inside = 0
    for row in range(num_requests):
        at = _int64(last)[row] if last != 0 else row
        if at < 0 or at >= num_tokens:
            return OUTSIDE
        of_last = _int32(phase_after)[at]
        _int32(request_phase)[row] = of_last
        if of_last != 0:
            is_inside = 1
    return is_inside


@_compiled("int64", 10)
def mask_logits(num_masked, num_tokens, logits, num_rows, vocabulary, row_bytes, tokens, rows, item_bytes, infinity):
    """infinity: the bits of minus infinity. Without ``rows`` all are meant."""
    for at in range(num_masked):
        row = _int64(rows)[at] if rows != 0 else at
        for number in range(num_tokens):
            token = _int64(tokens)[number]
            if row < 0 or row >= num_rows or token < 0 or token >= vocabulary:
                return OUTSIDE
            where = logits + row * row_bytes + token * item_bytes
            if item_bytes == 4:
                _int32(where)[0] = infinity
            else:
                _int16(where)[0] = infinity
    return 0


@_compiled("void", 9)
def decide(num_rows, chosen, phase, decided, is_learned, size, start_id, pad_id, end_id):
    for row in range(num_rows):
        token, before = _int32(chosen)[row], _int32(phase)[row]
        stands = is_learned and token in (start_id, end_id)
        if before >= 1 and not stands:
            token = end_id if before > size else pad_id
        _int32(decided)[row] = token
