"""Links: marks of what has to be re-linked, what the linker last saw of each entity, and the weights of tags."""

from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE TABLE relink_marks (
            seq           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            entity_type   text COLLATE "C" NOT NULL,
            entity_id     text COLLATE "C" NOT NULL,
            reason        text NOT NULL CHECK (reason IN ('changed', 'vector', 'tags', 'references', 'lists')),
            swept         boolean NOT NULL DEFAULT false,
            marked_at     timestamptz NOT NULL DEFAULT now()
        );
        COMMENT ON TABLE relink_marks IS
            'Entities to re-link, written in the transaction of the change that makes it necessary. Rows are only '
            'added, and deleted by the linker in the transaction that writes the edges: no change waits for another.';
        COMMENT ON COLUMN relink_marks.reason IS
            'changed: look at the ledger row; vector: its point was written or removed; tags: the weights '
            'of its tags are others; references: its reference edges; '
            'lists: its own neighbours only.';
        COMMENT ON COLUMN relink_marks.swept IS 'Everybody else is marked for lists: their lists need no look.';
        CREATE UNIQUE INDEX relink_marks_lists ON relink_marks (entity_type, entity_id) WHERE reason = 'lists';
        CREATE INDEX relink_marks_changes ON relink_marks (seq) WHERE reason <> 'lists';
        CREATE INDEX relink_marks_changed ON relink_marks (entity_type, entity_id) WHERE reason <> 'lists';
        CREATE INDEX relink_marks_unswept ON relink_marks (entity_type, entity_id)
            WHERE reason <> 'lists' AND NOT swept;

        CREATE TABLE linked (
            entity_type   text COLLATE "C" NOT NULL,
            entity_id     text COLLATE "C" NOT NULL,
            point         uuid,
            title_key     text COLLATE "C",
            slug_key      text COLLATE "C",
            tags          text[] COLLATE "C" NOT NULL,
            semantic_floor double precision,
            topical_floor double precision,
            linked_by     text NOT NULL,
            linked_at     timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (entity_type, entity_id)
        );
        COMMENT ON TABLE linked IS 'What the linker last saw of each living entity; written by the linker alone.';
        COMMENT ON COLUMN linked.point IS 'Its own point in Qdrant; NULL if it has none.';
        COMMENT ON COLUMN linked.semantic_floor IS 'Score of the last in a full list; NULL while the list has room.';
        CREATE UNIQUE INDEX linked_by_point ON linked (point) WHERE point IS NOT NULL;
        CREATE INDEX linked_by_title ON linked (title_key, entity_type, entity_id) WHERE title_key IS NOT NULL;
        CREATE INDEX linked_by_slug ON linked (slug_key, entity_type, entity_id) WHERE slug_key IS NOT NULL;
        -- Without a pending list: each look-up would read all of it, and the linker looks up more than it writes.
        CREATE INDEX linked_by_tag ON linked USING gin (tags) WITH (fastupdate = off);

        CREATE TABLE reference_uses (
            source_type   text COLLATE "C" NOT NULL,
            source_id     text COLLATE "C" NOT NULL,
            kind          text COLLATE "C" NOT NULL CHECK (kind IN ('id', 'title', 'slug')),
            key           text COLLATE "C" NOT NULL,
            within        text COLLATE "C",
            relation      text COLLATE "C" NOT NULL,
            strength      double precision NOT NULL,
            rule          text COLLATE "C" NOT NULL,
            reverse       boolean NOT NULL
        );
        COMMENT ON TABLE reference_uses IS 'Every reference that a text or its metadata makes, resolved or not.';
        CREATE INDEX reference_uses_by_source ON reference_uses (source_type, source_id);
        CREATE INDEX reference_uses_by_key ON reference_uses (key, kind);

        CREATE TABLE tag_weights (
            tag           text COLLATE "C" PRIMARY KEY,
            holders       bigint NOT NULL,
            weight        double precision NOT NULL,
            makes_candidates boolean NOT NULL
        );

        -- What was indexed before there were edges.
        INSERT INTO relink_marks (entity_type, entity_id, reason)
        SELECT entity_type, entity_id, 'changed' FROM entities WHERE deleted_at IS NULL;
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(
        f'DROP TABLE "{schema}".relink_marks, "{schema}".linked, "{schema}".reference_uses, "{schema}".tag_weights'
    )
