-- Projection: the last order of each farm to a node to read its store through.

CREATE TABLE scrubs (
    node BLOB NOT NULL,
    farm BLOB NOT NULL,
    statement BLOB NOT NULL,
    issued INTEGER NOT NULL,
    PRIMARY KEY (node, farm)
) STRICT, WITHOUT ROWID;
