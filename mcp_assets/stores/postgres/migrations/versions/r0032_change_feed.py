"""The change feed: what changed in the index and why, in the order of commits, and where readers and NATS stand."""

from alembic import context, op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


_CHANGES = """
CREATE TABLE changes (
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    made_at     timestamptz NOT NULL DEFAULT statement_timestamp(),
    kind        text COLLATE "C" NOT NULL,
    reason      text COLLATE "C" NOT NULL,
    entity_type text COLLATE "C",
    entity_id   text COLLATE "C",
    state_hash  text COLLATE "C",
    edge_type   text COLLATE "C",
    target_type text COLLATE "C",
    target_id   text COLLATE "C",
    strength    real,
    shard       integer,
    PRIMARY KEY (xid, seq)
);
-- Rows come in the order of time, so that the smallest of indexes finds a time.
CREATE INDEX changes_made_at ON changes USING brin (made_at);
COMMENT ON TABLE changes IS
    'The change feed: one entry for each change of an entity or an edge, written in the transaction of the change. '
    'Readers take entries in the order of (xid, seq), and only those of transactions that no running one precedes.';
COMMENT ON COLUMN changes.xid IS 'The transaction of the change: the first part of the position of the entry.';
COMMENT ON COLUMN changes.seq IS 'The second part of the position: it tells the entries of one transaction apart.';
COMMENT ON COLUMN changes.made_at IS 'When the change was written; its commit follows.';
COMMENT ON COLUMN changes.kind IS
    'indexed, removed: an entity; edge_added, edge_changed, edge_removed: an edge; edges_rebuilt: all edges from the '
    'entities of a partition; restarted: nothing is told of what was before.';
COMMENT ON COLUMN changes.reason IS 'What led to the change; docs/how-to/change-feed.md lists the reasons.';
COMMENT ON COLUMN changes.entity_type IS 'The type of the entity, of the source of the edge, or of the partition.';
COMMENT ON COLUMN changes.entity_id IS 'The id of the entity, or of the source of the edge.';
COMMENT ON COLUMN changes.state_hash IS 'Hash of text and metadata of an entity as it is indexed now.';
COMMENT ON COLUMN changes.edge_type IS 'The type of the edge.';
COMMENT ON COLUMN changes.target_type IS 'The type of the target of the edge.';
COMMENT ON COLUMN changes.target_id IS 'The id of the target of the edge.';
COMMENT ON COLUMN changes.strength IS 'The strength of the edge now; of a removed edge: the last one.';
COMMENT ON COLUMN changes.shard IS 'The shard of the partition, of edges_rebuilt.';
"""

_CHANGE_FEED = """
CREATE TABLE change_feed (
    one_row       boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    edition       text NOT NULL DEFAULT '',
    is_on         boolean NOT NULL DEFAULT false,
    database_life text,
    began_at      timestamptz,
    forgotten_xid xid8,
    forgotten_seq bigint,
    forgotten_at  timestamptz,
    published_xid xid8,
    published_seq bigint,
    rebuild_mark  bigint
);
INSERT INTO change_feed DEFAULT VALUES;
COMMENT ON TABLE change_feed IS 'One row: the edition of the change feed, what of it is deleted, what is published.';
COMMENT ON COLUMN change_feed.one_row IS 'True, so that there is one row.';
COMMENT ON COLUMN change_feed.edition IS
    'Random; each position begins with it. It is another one after the feed was off or the database was restored, '
    'because positions from before mean nothing then.';
COMMENT ON COLUMN change_feed.is_on IS 'Changes are written to the feed (MCP_ASSETS_CHANGES_KEPT).';
COMMENT ON COLUMN change_feed.database_life IS 'What `database_life` returned when the edition began.';
COMMENT ON COLUMN change_feed.began_at IS 'When the edition began; NULL: none has.';
COMMENT ON COLUMN change_feed.forgotten_xid IS 'Position up to which entries are deleted because of their age.';
COMMENT ON COLUMN change_feed.forgotten_seq IS 'The second part of that position.';
COMMENT ON COLUMN change_feed.forgotten_at IS 'When the newest of the deleted entries was written.';
COMMENT ON COLUMN change_feed.published_xid IS 'Position up to which NATS has confirmed entries; NULL: none.';
COMMENT ON COLUMN change_feed.published_seq IS 'The second part of that position.';
COMMENT ON COLUMN change_feed.rebuild_mark IS
    'The newest relink mark of the rebuild that is under way: once no mark is as old, all its edges are written. NULL: '
    'no rebuild is under way.';
"""

_DATABASE_LIFE = """
-- By the rights of its owner, so that it returns the same for each role.
CREATE FUNCTION database_life() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT system_identifier FROM pg_control_system()) || '/'
        || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/'
        || left(pg_walfile_name(pg_current_wal_lsn()), 8);
EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR object_not_in_prerequisite_state THEN
    RETURN NULL;
END $$;
COMMENT ON FUNCTION database_life IS
    'Server, database and timeline: it changes with a restore and a fail-over, after which transaction ids may come '
    'again. NULL: the server does not tell.';
"""


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(_CHANGES)
    op.execute(_CHANGE_FEED)
    op.execute(_DATABASE_LIFE)
    op.execute(
        """
        ALTER TABLE entities ADD COLUMN fed_state text COLLATE "C";
        COMMENT ON COLUMN entities.fed_state IS
            'The state_hash of which the change feed told last; empty: it told of the removal. NULL: it never told.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        "ALTER TABLE entities DROP COLUMN fed_state; DROP FUNCTION database_life; DROP TABLE change_feed; "
        "DROP TABLE changes"
    )
