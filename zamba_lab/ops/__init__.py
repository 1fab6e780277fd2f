"""Pure functions: tensors in, tensors out. No config, no module, no state of their own.

Shape letters: b batch, l position, s source position, d d_model, e d_inner, h heads, p headdim, n d_state, g groups,
c chunk, q position in chunk, r LoRA rank, k invocation, v vocabulary.
"""
