"""Verdicts of a team about edges, which the rules take as an input."""

from alembic import context, op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE edge_verdicts (
            source_type text COLLATE "C" NOT NULL,
            source_id   text COLLATE "C" NOT NULL,
            target_type text COLLATE "C" NOT NULL,
            target_id   text COLLATE "C" NOT NULL,
            edge_type   text COLLATE "C" NOT NULL,
            decision    text NOT NULL CHECK (decision IN ('accepted', 'rejected')),
            evidence    jsonb NOT NULL,
            strength    real CHECK (strength BETWEEN 0 AND 1),
            metadata    jsonb NOT NULL DEFAULT '{}',
            decided_by  text NOT NULL,
            decided_at  timestamptz NOT NULL DEFAULT now(),
            note        text,
            PRIMARY KEY (source_type, source_id, target_type, target_id, edge_type)
        );
        CREATE INDEX edge_verdicts_by_target ON edge_verdicts (target_type, target_id);
        CREATE INDEX edge_verdicts_by_time ON edge_verdicts (decided_at);
        COMMENT ON TABLE edge_verdicts IS
            'What a team decided about edges. An edge of a type without a direction has a row for each direction.';
        COMMENT ON COLUMN edge_verdicts.source_type IS 'The type of the entity at which the edge begins.';
        COMMENT ON COLUMN edge_verdicts.source_id IS 'Its id.';
        COMMENT ON COLUMN edge_verdicts.target_type IS 'The type of the entity to which the edge leads.';
        COMMENT ON COLUMN edge_verdicts.target_id IS 'Its id.';
        COMMENT ON COLUMN edge_verdicts.edge_type IS 'The type of the edge, as in relationships.relationship_type.';
        COMMENT ON COLUMN edge_verdicts.decision IS
            'accepted: the edge stays, whether or not the rules make it. rejected: it stays away while its evidence '
            'is that of this row.';
        COMMENT ON COLUMN edge_verdicts.evidence IS
            'The evidence when the verdict was given: hashes of both texts, the tags that are shared, or the words of '
            'the reference.';
        COMMENT ON COLUMN edge_verdicts.strength IS
            'The strength of the edge at that time; NULL: there was no edge in this direction.';
        COMMENT ON COLUMN edge_verdicts.metadata IS 'The metadata of the edge at that time.';
        COMMENT ON COLUMN edge_verdicts.decided_by IS 'The person or program that gave the verdict.';
        COMMENT ON COLUMN edge_verdicts.decided_at IS 'When the verdict was given.';
        COMMENT ON COLUMN edge_verdicts.note IS 'Why, in the words of the person who gave it.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute("DROP TABLE edge_verdicts")
