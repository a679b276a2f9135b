-- Which contracts a statement is evidence for, what a pool grants, and what has changed. All of it
-- follows from the statements and is filled by a rebuild, which this step brings about.

ALTER TABLE headers ADD COLUMN pool BLOB NOT NULL DEFAULT x'';
ALTER TABLE headers ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;

CREATE INDEX headers_by_pool ON headers (pool);

-- Identities and pools that the bundle of a contract carries.
CREATE TABLE evidence (
    statement BLOB NOT NULL,
    contract BLOB NOT NULL,
    PRIMARY KEY (statement, contract)
) STRICT, WITHOUT ROWID;

-- One row for each node of a pool that its farm has signed.
CREATE TABLE grants (
    node BLOB NOT NULL,
    pool BLOB NOT NULL,
    farm BLOB NOT NULL,
    owner BLOB NOT NULL,
    PRIMARY KEY (node, pool)
) STRICT, WITHOUT ROWID;

-- A new tag, never used before, whenever something came that the bundle of a contract may carry.
CREATE TABLE changes (
    contract BLOB NOT NULL PRIMARY KEY,
    tag BLOB NOT NULL,
    -- Counts all changes: contracts in the order in which they changed last.
    place INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

-- What the bundle for a node was when the tag of its contract was this one.
CREATE TABLE bundles (
    contract BLOB NOT NULL,
    node BLOB NOT NULL,
    tag BLOB NOT NULL,
    etag TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (contract, node)
) STRICT, WITHOUT ROWID;
