"""What the runs of one full sync share: partitions that are done, counts of entities that are gone, provider pauses."""

from alembic import context, op

revision = "0025"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE synced_partitions (
            entity_type   text COLLATE "C" NOT NULL,
            shards        integer NOT NULL,
            shard         integer NOT NULL,
            indexed_since timestamptz NOT NULL,
            linked_since  timestamptz,
            PRIMARY KEY (entity_type, shards, shard)
        );
        COMMENT ON TABLE synced_partitions IS
            'Up to when full syncs have brought each partition to the state of its source table, whatever run it was.';
        COMMENT ON COLUMN synced_partitions.entity_type IS 'Name of the entity type.';
        COMMENT ON COLUMN synced_partitions.shards IS
            'MCP_ASSETS_SHARDS of the run: by another number, a shard has other entities.';
        COMMENT ON COLUMN synced_partitions.shard IS 'Number of the shard, from 0.';
        COMMENT ON COLUMN synced_partitions.indexed_since IS
            'When the comparison with the source table began whose findings are all indexed.';
        COMMENT ON COLUMN synced_partitions.linked_since IS
            'The indexed_since whose entities are all linked; NULL: none yet.';

        CREATE TABLE deletion_judgements (
            entity_type text COLLATE "C" PRIMARY KEY,
            judged_at   timestamptz NOT NULL,
            gone        bigint NOT NULL,
            living      bigint NOT NULL
        );
        COMMENT ON TABLE deletion_judgements IS
            'How many entities of a type had lost their source row when a run last counted the whole type.';
        COMMENT ON COLUMN deletion_judgements.entity_type IS 'Name of the entity type.';
        COMMENT ON COLUMN deletion_judgements.judged_at IS
            'When they were counted. A run that covers a part of the type counts again after some minutes.';
        COMMENT ON COLUMN deletion_judgements.gone IS 'Living entities of the ledger without a living source row.';
        COMMENT ON COLUMN deletion_judgements.living IS
            'All living entities of the ledger that were made from the source table.';

        CREATE TABLE provider_pauses (
            provider text COLLATE "C" PRIMARY KEY,
            until    timestamptz NOT NULL
        );
        COMMENT ON TABLE provider_pauses IS
            'Until when no run sends a request to an embedding provider, because it asked one of them to wait.';
        COMMENT ON COLUMN provider_pauses.provider IS 'Host and port of the provider.';
        COMMENT ON COLUMN provider_pauses.until IS 'The end of the longest wait that it asked for.';

        COMMENT ON TABLE full_syncs IS
            'Full syncs that were asked for. Each is a backfill of the same id; if several runs share it, there is a '
            'second one of the edges.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        DROP TABLE synced_partitions, deletion_judgements, provider_pauses;
        COMMENT ON TABLE full_syncs IS 'Full syncs that were asked for. Each is one backfill, which has the same id.';
        """
    )
