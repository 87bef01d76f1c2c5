"""Drift: what the last census of each partition found."""

from alembic import context, op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE censuses (
            id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            entity_type   text COLLATE "C" NOT NULL,
            collection    text COLLATE "C" NOT NULL,
            low           integer NOT NULL,
            high          integer NOT NULL,
            deep          boolean NOT NULL,
            checked       bigint NOT NULL DEFAULT 0,
            points        bigint NOT NULL DEFAULT 0,
            edges         bigint NOT NULL DEFAULT 0,
            began_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
            ended_at      timestamptz
        );
        COMMENT ON TABLE censuses IS
            'The last census of each partition: the entities whose slot is in low to high, high not included.';
        COMMENT ON COLUMN censuses.ended_at IS 'NULL: it is under way, or was killed; its drift does not count.';
        CREATE INDEX censuses_by_range ON censuses (entity_type, collection, low);

        CREATE TABLE drift (
            id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            census        bigint NOT NULL REFERENCES censuses ON DELETE CASCADE,
            kind          text COLLATE "C" NOT NULL,
            entity_type   text COLLATE "C",
            entity_id     text COLLATE "C",
            subject       text NOT NULL,
            detail        text NOT NULL
        );
        COMMENT ON TABLE drift IS 'What the last census of each partition found.';
        COMMENT ON COLUMN drift.subject IS 'The point, or the row of relationships, that it is about; else empty.';
        CREATE INDEX drift_by_census ON drift (census, kind, id);
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'DROP TABLE "{schema}".drift, "{schema}".censuses')
