"""How fast full syncs embedded, for the plan of the next one."""

from alembic import context, op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE embedding_rates (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            model text NOT NULL,
            texts bigint NOT NULL,
            bytes bigint NOT NULL,
            tokens bigint,
            seconds double precision NOT NULL,
            ended_at timestamptz NOT NULL DEFAULT now()
        );
        COMMENT ON TABLE embedding_rates IS
            'What full syncs embedded and how long it took, so that a plan can say how long the next one takes.';
        COMMENT ON COLUMN embedding_rates.id IS 'Order in which the rows were written.';
        COMMENT ON COLUMN embedding_rates.model IS 'Name and dimension of the model, with a slash between.';
        COMMENT ON COLUMN embedding_rates.texts IS 'Texts that the provider answered.';
        COMMENT ON COLUMN embedding_rates.bytes IS 'Their length in UTF-8.';
        COMMENT ON COLUMN embedding_rates.tokens IS 'Tokens, as the provider counted them; NULL: it does not.';
        COMMENT ON COLUMN embedding_rates.seconds IS 'From the first request to the last answer.';
        COMMENT ON COLUMN embedding_rates.ended_at IS 'When the full sync ended.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute("DROP TABLE embedding_rates")
