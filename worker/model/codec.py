"""JSON in which a number keeps exactly its digits: how values of any shape are read and written."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec

decode = msgspec.json.Decoder(float_hook=Decimal).decode
"""Read a document; raises one of `REFUSED` for what is none, or has an exponent beyond all numbers."""

REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidOperation)

encode = msgspec.json.Encoder(decimal_format="number").encode
"""Write a document; a Decimal becomes a number of exactly its digits."""
