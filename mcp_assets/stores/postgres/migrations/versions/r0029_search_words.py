"""The search words of entities, so that they are found by words and not by meaning alone."""

from alembic import context, op

revision = "0029"
down_revision = "0025"
branch_labels = None
depends_on = None


_TABLE = """
CREATE TABLE search_words (
    entity_type text COLLATE "C" NOT NULL,
    entity_id   text COLLATE "C" NOT NULL,
    words       tsvector NOT NULL,
    length      integer NOT NULL,
    PRIMARY KEY (entity_type, entity_id)
);
-- A table of its own, because rows of entities are updated more often than their texts, and each update of a
-- row would write its words into the index again.
-- Words hardly become smaller by compression, and a search would uncompress them of each candidate.
ALTER TABLE search_words ALTER COLUMN words SET STORAGE EXTERNAL;
CREATE INDEX search_words_words ON search_words USING gin (words);
COMMENT ON TABLE search_words IS
    'The search words of each living entity, written in the transaction that writes its ledger row.';
COMMENT ON COLUMN search_words.entity_type IS 'The type of the entity.';
COMMENT ON COLUMN search_words.entity_id IS 'The id of the entity.';
COMMENT ON COLUMN search_words.words IS
    'Words of id, title and text. The weight of a word is A: in id or title, B: four times or more in the '
    'text, C: twice or three times, none: once. With = before it stands the whole id or title.';
COMMENT ON COLUMN search_words.length IS 'Words of id, title and text, repetitions included.';
"""

_FUNCTIONS = """
-- Values of metadata are compared as times where a question does. What is no time compares as NULL.
CREATE FUNCTION as_time(value text) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE SET timezone TO 'UTC' AS $$
BEGIN
    RETURN CASE WHEN value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}' THEN value::timestamptz END;
EXCEPTION WHEN datetime_field_overflow OR invalid_datetime_format THEN
    RETURN NULL;
END $$;
COMMENT ON FUNCTION as_time IS 'A text as a time, in UTC if it names no zone; NULL: it is none.';

CREATE FUNCTION meets(metadata jsonb, conditions jsonb) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
SET search_path FROM CURRENT AS $$
    SELECT NOT EXISTS (
        SELECT FROM jsonb_to_recordset(conditions)
            AS asked (key text, comparison text, any_of jsonb, number numeric, moment timestamptz)
        WHERE NOT CASE comparison
            WHEN '=' THEN EXISTS (
                SELECT FROM jsonb_array_elements(any_of) AS wanted WHERE metadata -> key @> wanted
            )
            WHEN '!=' THEN NOT EXISTS (
                SELECT FROM jsonb_array_elements(any_of) AS wanted WHERE metadata -> key @> wanted
            )
            ELSE EXISTS (
                SELECT FROM jsonb_array_elements(
                    CASE jsonb_typeof(metadata -> key) WHEN 'array' THEN metadata -> key
                    ELSE jsonb_build_array(metadata -> key) END
                ) AS element,
                LATERAL (SELECT CASE
                    WHEN number IS NULL THEN sign(extract(epoch FROM as_time(
                        CASE WHEN jsonb_typeof(element) = 'string' THEN element #>> '{}' END) - moment))
                    WHEN jsonb_typeof(element) = 'number' THEN sign(element::numeric - number) END AS side
                ) AS compared
                WHERE CASE comparison WHEN '<' THEN side < 0 WHEN '<=' THEN side <= 0
                      WHEN '>' THEN side > 0 ELSE side >= 0 END
            ) END
    )
$$;
COMMENT ON FUNCTION meets IS
    'Whether metadata meet all conditions of a search. An element of a list is enough to meet one.';
"""


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(_TABLE)
    op.execute(_FUNCTIONS)


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute("DROP FUNCTION meets; DROP FUNCTION as_time; DROP TABLE search_words")
