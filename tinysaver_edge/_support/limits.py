"""How much of what strangers send is taken: bytes, pixels, rows, connections, tries, characters.

Whoever reads from a network, or a file whole, looks here for how much. `docs`: README, "Limits".
"""

from __future__ import annotations

HEADER_BYTES = 16 << 10
"""Request line and headers of one request."""

# Files

MOST_WHOLE_BYTES = 1 << 30
"""A file that is read whole: a text, a table, a key, a picture."""

MOST_TOKEN_BYTES = HEADER_BYTES // 4
"""A token, which goes into a header, over gRPC into two; read anew with each request."""

MOST_PEM_BYTES = 16 << 20
"""Certificates: those of all authorities there are take a quarter of one."""

MOST_FILE_BYTES = 256 << 20
"""One image in a .zip, a .tar or a folder."""

MOST_PIPED_BYTES = 1 << 26
"""The same out of a pipe or a device, which may have no end."""

WRITER_S = 3.0
"""How long somebody may take to begin to write into a pipe."""

# Answers of hosts

MOST_ANSWER_BYTES = 64 << 20
"""An answer of a host of the large model: no batch of class scores is longer."""

MOST_TOLD_BYTES = 1 << 20
"""What a host says of itself: metadata, configuration, errors."""

MOST_JSON_BYTES = 16 << 20
"""JSON, which takes several times its length when it is read."""

MOST_TOML_BYTES = 4 << 20
"""TOML, which takes more."""

MOST_KEY_PARTS = 32
"""Of one of its keys: ``a.b.c``."""

# Bundles that are fetched

MOST_BUNDLE_BYTES = 16 << 30
"""All files of a bundle that is fetched."""

MOST_BUNDLE_FILES = 1024
"""Files of a bundle that is fetched: models, their parts, and golden samples."""

SLOWEST_BYTES_S = 4096
"""Bytes a second at which a transfer goes on; what is slower is begun again where it ended."""

# Pictures

MOST_SNAPSHOT_BYTES = 32 << 20
"""One picture that a camera sends as a file."""

MOST_PIXELS = 100_000_000
"""Pixels of a picture, from a file or a network, told by its header before it is decoded."""

JPEG_ROOM_BYTES = 64 << 10
"""What a JPEG file may hold beyond the bytes of its pixels: noise and metadata."""

# Requests

MOST_ROWS = 1024
"""Frames of one request to `serve`."""

MOST_SPELT_BYTES = 4 << 20
"""Numbers of a request to `serve` that are spelt out, as JSON or one by one, and no raw bytes:
they take a hundred times their length when they are read."""

# Connections

MOST_CONNECTIONS = 32
"""Of a stream's own servers, each: the page, and metrics and health."""

ACCEPTED_AT_ONCE = 16
"""Connections that a server takes in one go, before it looks at those it has."""

QUEUED = 512
"""Connections that the system keeps for a server until they are taken."""

MOST_SERVE_CONNECTIONS = 256
"""Of HTTP clients of `serve`."""

MOST_HALF_SENT = 32
"""gRPC requests whose message is still under way; beyond it the oldest is given up."""

REQUEST_S = 10.0
"""How long a client may take to send a request, from its connection or its last answer on."""

ANSWER_S = 30.0
"""How long a client may take to read an answer."""

MOST_PIECES = 20
"""Pieces that they may come in: what comes in drops is read less and less often."""

DOOR_SHARE = 0.2
"""Of one processor core: what each of a stream's own servers may take of it, whoever asks."""

KNOCKS_PER_S = 100.0
"""Connections and pieces of requests without the token that `serve` reads over HTTP of one address;
what comes beyond is read later."""

KNOCKS_AT_ONCE = 100
"""Of them, after a time of rest."""

PAGE_THREADS = 2
"""That encode pictures for a page, and read its files."""

# Tries

WRONG_TOKEN_S = 0.5
"""How long a wrong token waits for its answer."""

WRONG_TOKENS_AT_ONCE = 6
"""Wrong tokens of one address that may wait for their answers; until one has been answered no
further token of that address is looked at, but from connections that have shown the right one."""

WRONG_TOKENS_OF_ALL = 24
"""The same for all addresses together, so that many of them guess no faster."""

MOST_TURNED_AWAY = 256
"""Refused gRPC calls that wait for their answer; further ones have it at once."""

# Text

MOST_TEXT = 300
"""Characters of a stranger's text in one message."""

MOST_NAME = 128
"""Characters of a stranger's name of something: a version, a hash, a tensor."""

MOST_LINE = 4000
"""Characters of a line on the terminal or in the log."""
