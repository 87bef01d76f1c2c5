"""What is seen from outside: counters, embedding cost by day, shared rates of the provider, and traces of messages."""

from alembic import context, op

revision = "0026"
down_revision = "0028"
branch_labels = None
depends_on = None

_TRACED = ("inbox", "relate_requests", "full_sync_requests", "outbox")
"""Tables whose rows carry the trace of the message that they stem from."""


_TABLES = """
CREATE TABLE counters (
    name text NOT NULL,
    label text NOT NULL,
    part text NOT NULL,
    value double precision NOT NULL,
    PRIMARY KEY (name, label, part)
) WITH (fillfactor = 50);
COMMENT ON TABLE counters IS
    'Sums since the platform was installed, which `mcp-assets metrics` shows. Each batch adds to them in the '
    'transaction of its work.';
COMMENT ON COLUMN counters.name IS 'What is counted.';
COMMENT ON COLUMN counters.label IS 'Of which entity type, kind of message, or model.';
COMMENT ON COLUMN counters.part IS
    'The outcome, the status of a refusal, or the upper bound of a bucket of a histogram; empty: a sum.';
COMMENT ON COLUMN counters.value IS 'The sum.';

CREATE TABLE embedding_costs (
    day date NOT NULL,
    entity_type text NOT NULL,
    model text NOT NULL,
    texts bigint NOT NULL,
    tokens bigint NOT NULL,
    estimated_tokens bigint NOT NULL,
    usd double precision NOT NULL,
    PRIMARY KEY (day, entity_type, model)
) WITH (fillfactor = 50);
COMMENT ON TABLE embedding_costs IS 'What was embedded on each day, and what it cost: `mcp-assets costs`.';
COMMENT ON COLUMN embedding_costs.day IS 'The day, UTC.';
COMMENT ON COLUMN embedding_costs.entity_type IS 'Whose texts.';
COMMENT ON COLUMN embedding_costs.model IS 'Name and dimension of the model, with a slash between.';
COMMENT ON COLUMN embedding_costs.texts IS 'Texts that the provider answered.';
COMMENT ON COLUMN embedding_costs.tokens IS 'Tokens, counted by the provider or estimated.';
COMMENT ON COLUMN embedding_costs.estimated_tokens IS
    'Those of the tokens that are estimated by the length of the texts, because the provider counts none.';
COMMENT ON COLUMN embedding_costs.usd IS 'US dollars, by the price on that day; 0 where no price is known.';

CREATE TABLE budget_raises (
    day date PRIMARY KEY,
    usd double precision NOT NULL
);
COMMENT ON TABLE budget_raises IS 'Days on which a person has allowed more than the daily embedding budget.';
COMMENT ON COLUMN budget_raises.day IS 'The day, UTC.';
COMMENT ON COLUMN budget_raises.usd IS 'US dollars beyond EMBEDDING_BUDGET_A_DAY.';

CREATE TABLE provider_rates (
    model text PRIMARY KEY,
    requests double precision NOT NULL,
    tokens double precision NOT NULL,
    refilled_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE provider_rates IS
    'How many requests and tokens all runs together may still send to a model now. It refills all the time.';
COMMENT ON COLUMN provider_rates.model IS 'Name and dimension of the model, with a slash between.';
COMMENT ON COLUMN provider_rates.requests IS
    'Requests that were left at refilled_at; below zero: so many are reserved and wait.';
COMMENT ON COLUMN provider_rates.tokens IS
    'Tokens that were left at refilled_at; below zero: so many are reserved and wait.';
COMMENT ON COLUMN provider_rates.refilled_at IS 'When the two were computed last.';
"""


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(_TABLES)
    for table in _TRACED:
        op.execute(f"ALTER TABLE {table} ADD COLUMN traceparent text")
        op.execute(
            f"COMMENT ON COLUMN {table}.traceparent IS "
            "'The trace (W3C Trace Context) of the message that led to it; several are separated by commas. NULL: its "
            "sender named none.'"
        )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    for table in _TRACED:
        op.execute(f"ALTER TABLE {table} DROP COLUMN traceparent")
    op.execute("DROP TABLE provider_rates; DROP TABLE budget_raises; DROP TABLE embedding_costs; DROP TABLE counters")
