-- Truth: statements with their signatures, the documents under their roots, signs of life.

CREATE TABLE statements (
    arrival INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL,
    received INTEGER NOT NULL,
    -- Set when everybody has signed who must: the place in the order in which statements count.
    place INTEGER UNIQUE,
    completed INTEGER
) STRICT;

CREATE TABLE signatures (
    statement BLOB NOT NULL,
    keyid BLOB NOT NULL,
    sig TEXT NOT NULL,
    PRIMARY KEY (statement, keyid)
) STRICT, WITHOUT ROWID;

CREATE TABLE documents (
    id BLOB NOT NULL PRIMARY KEY,
    contract BLOB NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

CREATE INDEX documents_by_contract ON documents (contract);

CREATE TABLE deployments (
    header BLOB NOT NULL,
    place INTEGER NOT NULL,
    node BLOB NOT NULL,
    contract BLOB NOT NULL,
    document BLOB NOT NULL,
    path TEXT NOT NULL,
    workloads TEXT NOT NULL,
    PRIMARY KEY (header, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX deployments_by_node ON deployments (node, contract);

CREATE TABLE heartbeats (
    node BLOB NOT NULL PRIMARY KEY,
    payload BLOB NOT NULL,
    received INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Projection: what follows from the statements, in the order of their places. Made anew by
-- `registryd rebuild`.

CREATE TABLE identities (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE farms (
    id BLOB NOT NULL PRIMARY KEY,
    statement BLOB NOT NULL,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    id BLOB NOT NULL PRIMARY KEY,
    statement BLOB NOT NULL,
    farm BLOB NOT NULL,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX nodes_by_farm ON nodes (farm);

CREATE TABLE adoptions (
    node BLOB NOT NULL,
    farm BLOB NOT NULL,
    statement BLOB NOT NULL,
    PRIMARY KEY (node, farm, statement)
) STRICT, WITHOUT ROWID;

CREATE TABLE headers (
    contract BLOB NOT NULL,
    version INTEGER NOT NULL,
    statement BLOB NOT NULL,
    PRIMARY KEY (contract, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE contracts (
    id BLOB NOT NULL PRIMARY KEY,
    owner BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX contracts_by_owner ON contracts (owner);

CREATE TABLE stakeholders (
    identity BLOB NOT NULL,
    contract BLOB NOT NULL,
    PRIMARY KEY (identity, contract)
) STRICT, WITHOUT ROWID;

CREATE TABLE approvals (
    contract BLOB NOT NULL,
    statement BLOB NOT NULL,
    subject BLOB NOT NULL,
    signer BLOB NOT NULL,
    issued INTEGER NOT NULL,
    strength INTEGER NOT NULL,
    PRIMARY KEY (contract, statement)
) STRICT, WITHOUT ROWID;

CREATE TABLE cancels (
    contract BLOB NOT NULL,
    statement BLOB NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (contract, statement)
) STRICT, WITHOUT ROWID;

CREATE TABLE results (
    place INTEGER PRIMARY KEY,
    statement BLOB NOT NULL UNIQUE,
    node BLOB NOT NULL,
    seq INTEGER NOT NULL,
    contract BLOB NOT NULL,
    workload TEXT,
    conflict INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX results_by_seq ON results (node, seq) WHERE conflict = 0;
CREATE INDEX results_by_contract ON results (contract, place);
CREATE INDEX results_by_node ON results (node, place);
