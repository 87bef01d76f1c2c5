"""The embedding provider: since when it refuses everything, and vectors that are paid and could not be written yet."""

from alembic import context, op

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE provider_outages (
            model         text COLLATE "C" PRIMARY KEY,
            reason        text NOT NULL,
            since         timestamptz NOT NULL DEFAULT now(),
            tries         integer NOT NULL DEFAULT 1,
            next_try_at   timestamptz NOT NULL
        );
        COMMENT ON TABLE provider_outages IS
            'Embedding models whose provider embeds nothing now: no run is asked for before the next try.';
        COMMENT ON COLUMN provider_outages.model IS 'Name and dimension.';
        COMMENT ON COLUMN provider_outages.tries IS 'Runs that failed by it, the first one counted.';

        CREATE TABLE unwritten_vectors (
            model         text COLLATE "C" NOT NULL,
            text_hash     text COLLATE "C" NOT NULL,
            vectors       bytea NOT NULL,
            kept_at       timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (model, text_hash)
        );
        COMMENT ON TABLE unwritten_vectors IS
            'Vectors that the provider was paid for and that Qdrant could not take: used in place of embedding again.';
        COMMENT ON COLUMN unwritten_vectors.vectors IS
            'float32, little-endian, length 1 each: of the text itself, then of its chunks.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute("DROP TABLE unwritten_vectors; DROP TABLE provider_outages;")
