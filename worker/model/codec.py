"""JSON in which a number keeps exactly its digits: how values of any shape are read and written."""

from __future__ import annotations

from decimal import Decimal

import msgspec

decode = msgspec.json.Decoder(float_hook=Decimal).decode
"""Read a document; raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError for what is none."""

encode = msgspec.json.Encoder(decimal_format="number").encode
"""Write a document; a Decimal becomes a number of exactly its digits."""
