"""Triton kernels of attention over chosen pairs of texts, and its gradients.

Of text i's queries over text j's keys, per head and query: a = softmax(scale q k), o = a @ v, n = a @ |v|,
c = 1 / (n + epsilon) with V-norm and 1 without, b = c o; the output is the sum over the pairs of i of w b.

Its gradients, with g the output's and s = <g, b>: dw = s; dv_t = a_t w c g, and -a_t w c s for |v_t|; of a score
a_t w c (<g, v_t> - s (|v_t| + epsilon)), because the softmax's own mean is w c s epsilon. Without V-norm c is 1 and
(|v_t| + epsilon) is 1.

Shapes: N texts, P pairs, H query heads, K key/value heads, L tokens, D and E head sizes. Sums are made in fp32.
Nothing is added by two programs, so the same input gives the same bits.
"""

# mypy: disallow-untyped-defs=False
# (what Triton compiles has no Python types)
import triton
import triton.language as tl

__all__ = ["INTERPRETED", "key_value_grad_kernel", "output_kernel", "query_grad_kernel"]

INTERPRETED: bool = triton.knobs.runtime.interpret


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr, WIDE: tl.constexpr):
    if WIDE:  # the interpreter would multiply the bit patterns of bf16
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _load_rows(start, rows, row_stride, row_count, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """(rows, BLOCK) numbers, zero beyond ``row_count`` rows and SIZE columns."""
    columns = tl.arange(0, BLOCK)
    inside = (rows < row_count)[:, None] & (columns < SIZE)[None, :]
    return tl.load(start + rows[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _store_rows(start, values, rows, row_stride, row_count, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    inside = (rows < row_count)[:, None] & (columns < SIZE)[None, :]
    tl.store(start + rows[:, None] * row_stride + columns[None, :], values.to(start.dtype.element_ty), mask=inside)


@triton.jit
def _readable(mask, text, keys, length, MASKED: tl.constexpr):
    """Which of these keys are real tokens of the text."""
    inside = keys < length
    if MASKED:
        inside = tl.load(mask + text * length + keys, mask=inside, other=0) != 0
    return inside


@triton.jit
def output_kernel(
    q, k, v, norms, mask, spans, reader_starts, sources, weights, out, lse, mean_norms,
    q_n, q_h, q_l, k_n, k_h, k_l, v_n, v_h, v_l, out_n, out_h, out_l,
    heads, kv_heads, length, log2_scale, epsilon,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    V_NORM: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program: all the pairs of BLOCK_M queries of one text and head. Leaves ``lse`` (base 2) and n behind."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    text = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    kv_head = head // (heads // kv_heads)
    query = _load_rows(q + text * q_n + head * q_h, rows, q_l, length, D, BLOCK_D)
    total = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    first_pair = tl.load(reader_starts + text).to(tl.int64)
    for pair in range(first_pair, tl.load(reader_starts + text + 1).to(tl.int64)):
        source = tl.load(sources + pair).to(tl.int64)
        weight = tl.load(weights + pair)
        highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        mass = tl.zeros((BLOCK_M,), tl.float32)
        norm_sum = tl.zeros((BLOCK_M,), tl.float32)
        read = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
        for start in range(tl.load(spans + 2 * source), tl.load(spans + 2 * source + 1), BLOCK_N):
            keys = start + tl.arange(0, BLOCK_N)
            key = _load_rows(k + source * k_n + kv_head * k_h, keys, k_l, length, D, BLOCK_D)
            value = _load_rows(v + source * v_n + kv_head * v_h, keys, v_l, length, E, BLOCK_E)
            scores = _dot(query, tl.trans(key), PRECISION, WIDE) * log2_scale
            scores = tl.where(_readable(mask, source, keys, length, MASKED)[None, :], scores, float("-inf"))
            new_highest = tl.maximum(highest, tl.max(scores, 1))
            base = tl.where(new_highest == float("-inf"), 0.0, new_highest)
            shrink = tl.exp2(highest - base)
            attention = tl.exp2(scores - base[:, None])
            mass = mass * shrink + tl.sum(attention, 1)
            read = read * shrink[:, None] + _dot(attention.to(value.dtype), value, PRECISION, WIDE)
            if V_NORM:
                at = norms + (source * kv_heads + kv_head) * length + keys
                norm = tl.load(at, mask=keys < length, other=0.0)
                norm_sum = norm_sum * shrink + tl.sum(attention * norm[None, :], 1)
            highest = new_highest
        empty = mass == 0.0  # a text of nothing but padding
        mass = tl.where(empty, 1.0, mass)
        at = (pair * heads + head) * length + rows
        tl.store(lse + at, tl.where(empty, 0.0, highest + tl.log2(mass)), mask=rows < length)
        if V_NORM:
            tl.store(mean_norms + at, norm_sum / mass, mask=rows < length)
            total += read * (weight / (norm_sum + epsilon * mass))[:, None]
        else:
            total += read * (weight / mass)[:, None]
    _store_rows(out + text * out_n + head * out_h, total, rows, out_l, length, E, BLOCK_E)


@triton.jit
def query_grad_kernel(
    q, k, v, norms, mask, spans, reader_starts, sources, weights, grad, lse, mean_norms, dq, along,
    q_n, q_h, q_l, k_n, k_h, k_l, v_n, v_h, v_l, g_n, g_h, g_l, dq_n, dq_h, dq_l,
    heads, kv_heads, length, scale, log2_scale, epsilon,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    V_NORM: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_M queries of one text and head. Leaves ``along`` (P, H, L), s, behind."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    text = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    kv_head = head // (heads // kv_heads)
    query = _load_rows(q + text * q_n + head * q_h, rows, q_l, length, D, BLOCK_D)
    out_grad = _load_rows(grad + text * g_n + head * g_h, rows, g_l, length, E, BLOCK_E)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    first_pair = tl.load(reader_starts + text).to(tl.int64)
    for pair in range(first_pair, tl.load(reader_starts + text + 1).to(tl.int64)):
        source = tl.load(sources + pair).to(tl.int64)
        first = tl.load(spans + 2 * source)
        end = tl.load(spans + 2 * source + 1)
        at = (pair * heads + head) * length + rows
        row_lse = tl.load(lse + at, mask=rows < length, other=float("inf"))
        inverse = tl.full((BLOCK_M,), 1.0, tl.float32)
        if V_NORM:
            inverse = 1.0 / (tl.load(mean_norms + at, mask=rows < length, other=1.0) + epsilon)
        row_along = tl.zeros((BLOCK_M,), tl.float32)
        for start in range(first, end, BLOCK_N):
            keys = start + tl.arange(0, BLOCK_N)
            key = _load_rows(k + source * k_n + kv_head * k_h, keys, k_l, length, D, BLOCK_D)
            value = _load_rows(v + source * v_n + kv_head * v_h, keys, v_l, length, E, BLOCK_E)
            scores = _dot(query, tl.trans(key), PRECISION, WIDE) * log2_scale - row_lse[:, None]
            readable = _readable(mask, source, keys, length, MASKED)
            attention = tl.where(readable[None, :], tl.exp2(scores), 0.0)
            row_along += tl.sum(attention * _dot(out_grad, tl.trans(value), PRECISION, WIDE), 1)
        row_along *= inverse
        tl.store(along + at, row_along, mask=rows < length)
        factor = tl.load(weights + pair) * inverse
        # a second sweep, not two sums in the first: their difference would lose its digits
        for start in range(first, end, BLOCK_N):
            keys = start + tl.arange(0, BLOCK_N)
            key = _load_rows(k + source * k_n + kv_head * k_h, keys, k_l, length, D, BLOCK_D)
            value = _load_rows(v + source * v_n + kv_head * v_h, keys, v_l, length, E, BLOCK_E)
            scores = _dot(query, tl.trans(key), PRECISION, WIDE) * log2_scale - row_lse[:, None]
            readable = _readable(mask, source, keys, length, MASKED)
            attention = tl.where(readable[None, :], tl.exp2(scores), 0.0)
            score_grad = _dot(out_grad, tl.trans(value), PRECISION, WIDE)
            if V_NORM:
                norm_at = norms + (source * kv_heads + kv_head) * length + keys
                norm = tl.load(norm_at, mask=keys < length, other=0.0)
                score_grad -= row_along[:, None] * (norm + epsilon)[None, :]
            else:
                score_grad -= row_along[:, None]
            score_grad *= attention * factor[:, None]
            total += _dot(score_grad.to(key.dtype), key, PRECISION, WIDE)
    _store_rows(dq + text * dq_n + head * dq_h, total * scale, rows, dq_l, length, D, BLOCK_D)


@triton.jit
def key_value_grad_kernel(
    q, k, v, norms, mask, source_starts, by_source, readers, weights, grad, lse, mean_norms, along, dk, dv,
    q_n, q_h, q_l, k_n, k_h, k_l, v_n, v_h, v_l, g_n, g_h, g_l, dk_n, dk_h, dk_l, dv_n, dv_h, dv_l,
    heads, kv_heads, length, scale, log2_scale, epsilon,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    V_NORM: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_N keys and values of one text and key/value head, over all who read them."""
    keys = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    text = (tl.program_id(1) // kv_heads).to(tl.int64)
    kv_head = tl.program_id(1) % kv_heads
    group = heads // kv_heads
    key = _load_rows(k + text * k_n + kv_head * k_h, keys, k_l, length, D, BLOCK_D)
    value = _load_rows(v + text * v_n + kv_head * v_h, keys, v_l, length, E, BLOCK_E)
    readable = _readable(mask, text, keys, length, MASKED)
    norm = tl.zeros((BLOCK_N,), tl.float32)
    if V_NORM:
        norm_at = norms + (text * kv_heads + kv_head) * length + keys
        norm = tl.load(norm_at, mask=keys < length, other=0.0)
    key_total = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    value_total = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    norm_total = tl.zeros((BLOCK_N,), tl.float32)
    for entry in range(tl.load(source_starts + text), tl.load(source_starts + text + 1)):
        pair = tl.load(by_source + entry).to(tl.int64)
        reader = tl.load(readers + pair).to(tl.int64)
        weight = tl.load(weights + pair)
        for head in range(kv_head * group, (kv_head + 1) * group):
            for start in range(0, length, BLOCK_M):
                rows = start + tl.arange(0, BLOCK_M)
                query = _load_rows(q + reader * q_n + head * q_h, rows, q_l, length, D, BLOCK_D)
                out_grad = _load_rows(grad + reader * g_n + head * g_h, rows, g_l, length, E, BLOCK_E)
                at = (pair * heads + head) * length + rows
                row_lse = tl.load(lse + at, mask=rows < length, other=float("inf"))
                row_along = tl.load(along + at, mask=rows < length, other=0.0)
                factor = tl.full((BLOCK_M,), 1.0, tl.float32) * weight
                if V_NORM:
                    factor /= tl.load(mean_norms + at, mask=rows < length, other=1.0) + epsilon
                scores = _dot(key, tl.trans(query), PRECISION, WIDE) * log2_scale - row_lse[None, :]
                attention = tl.where(readable[:, None], tl.exp2(scores), 0.0) * factor[None, :]
                value_total += _dot(attention.to(out_grad.dtype), out_grad, PRECISION, WIDE)
                score_grad = _dot(value, tl.trans(out_grad), PRECISION, WIDE)
                if V_NORM:
                    norm_total -= tl.sum(attention * row_along[None, :], 1)
                    score_grad -= (norm + epsilon)[:, None] * row_along[None, :]
                else:
                    score_grad -= row_along[None, :]
                score_grad *= attention
                key_total += _dot(score_grad.to(query.dtype), query, PRECISION, WIDE)
    if V_NORM:
        value_total += value.to(tl.float32) * (norm_total / tl.where(norm > 0.0, norm, 1.0))[:, None]
    _store_rows(dk + text * dk_n + kv_head * dk_h, key_total * scale, keys, dk_l, length, D, BLOCK_D)
    _store_rows(dv + text * dv_n + kv_head * dv_h, value_total, keys, dv_l, length, E, BLOCK_E)
