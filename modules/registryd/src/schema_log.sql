-- The transparency log, once it has begun: how far it is. This row is what two sequencers would
-- fight for, and it only ever grows.
CREATE TABLE log (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    origin TEXT NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL
) STRICT;

-- Its entries: that of the statement with place 1 is entry 0. Written once, before any file of the
-- log has them, so that an attempt that was cut off is repeated byte for byte.
CREATE TABLE records (
    place INTEGER PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;
