-- name: add_to_counters
-- Adds to counters. The rows are locked in one order, so that two transactions do not wait for each other.
INSERT INTO {schema}.counters AS known (name, label, part, value)
SELECT name, label, part, sum(value)
FROM unnest(%(name)s::text[], %(label)s::text[], %(part)s::text[], %(value)s::float8[])
    AS added (name, label, part, value)
GROUP BY name, label, part
ORDER BY name, label, part
ON CONFLICT (name, label, part) DO UPDATE SET value = known.value + excluded.value

-- name: read_counters
-- All counters.
SELECT name, label, part, value FROM {schema}.counters ORDER BY name, label, part

-- name: add_to_costs
-- Adds what was embedded to the costs of today, UTC.
INSERT INTO {schema}.embedding_costs AS known (day, entity_type, model, texts, tokens, estimated_tokens, usd)
SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date, added.*
FROM unnest(%(entity_type)s::text[], %(model)s::text[], %(texts)s::bigint[], %(tokens)s::bigint[],
            %(estimated_tokens)s::bigint[], %(usd)s::float8[])
    AS added (entity_type, model, texts, tokens, estimated_tokens, usd)
ORDER BY entity_type, model
ON CONFLICT (day, entity_type, model) DO UPDATE
SET texts = known.texts + excluded.texts, tokens = known.tokens + excluded.tokens,
    estimated_tokens = known.estimated_tokens + excluded.estimated_tokens, usd = known.usd + excluded.usd

-- name: costs_by_day
-- What was embedded on each of the last days, the newest first.
SELECT day, entity_type, model, texts, tokens, estimated_tokens, usd FROM {schema}.embedding_costs
WHERE day > (clock_timestamp() AT TIME ZONE 'UTC')::date - %(days)s::integer
ORDER BY day DESC, entity_type, model

-- name: costs_in_all
-- What was embedded since the platform was installed, by entity type and model.
SELECT entity_type, model, sum(texts)::bigint AS texts, sum(tokens)::bigint AS tokens, sum(usd) AS usd
FROM {schema}.embedding_costs GROUP BY 1, 2 ORDER BY 1, 2

-- name: budget_today
-- One row: US dollars spent today, UTC, and what a person has allowed today beyond the budget; the seconds left of it.
SELECT coalesce((SELECT sum(usd) FROM {schema}.embedding_costs WHERE day = clock.today), 0)::float8 AS spent_usd,
       coalesce((SELECT usd FROM {schema}.budget_raises WHERE day = clock.today), 0)::float8 AS raised_usd,
       extract(epoch FROM (clock.today + 1)::timestamp AT TIME ZONE 'UTC' - clock_timestamp())::float8 AS ends_in_s
FROM (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) AS clock

-- name: raise_budget
-- Allows US dollars beyond the budget, today, UTC. Returns what is allowed beyond it in all.
INSERT INTO {schema}.budget_raises AS known (day, usd)
VALUES ((clock_timestamp() AT TIME ZONE 'UTC')::date, %(usd)s)
ON CONFLICT (day) DO UPDATE SET usd = known.usd + excluded.usd
RETURNING usd

-- name: begin_rate
-- Makes the row of a model that is limited for the first time.
INSERT INTO {schema}.provider_rates (model, requests, tokens, refilled_at)
VALUES (%(model)s, %(most_requests)s, %(most_tokens)s, clock_timestamp())
ON CONFLICT (model) DO NOTHING

-- name: take_rate
-- Reserves one request and its tokens, and returns what is left; below zero, the caller waits until it is refilled.
-- Changes no row if less would be left than the caller has to leave to others: it asks again later.
UPDATE {schema}.provider_rates
SET requests = least(
        %(most_requests)s,
        requests + %(requests_a_s)s * greatest(extract(epoch FROM clock_timestamp() - refilled_at)::float8, 0)
    ) - 1,
    tokens = least(
        %(most_tokens)s,
        tokens + %(tokens_a_s)s * greatest(extract(epoch FROM clock_timestamp() - refilled_at)::float8, 0)
    ) - %(tokens)s,
    refilled_at = clock_timestamp()
WHERE model = %(model)s
  AND requests + %(requests_a_s)s * extract(epoch FROM clock_timestamp() - refilled_at)::float8 >= %(least_requests)s
  AND tokens + %(tokens_a_s)s * extract(epoch FROM clock_timestamp() - refilled_at)::float8 >= %(least_tokens)s
RETURNING requests, tokens

-- name: limit_scrape
-- Limits how long each query of this transaction may take.
SELECT set_config('statement_timeout', %(timeout)s, true)

-- name: scrape_waiting
-- One row: entities that are marked to be linked, the age of the oldest mark, rechecks, and results in the outbox.
SELECT (SELECT count(DISTINCT (entity_type, entity_id)) FROM {schema}.relink_marks) AS marked,
       coalesce((SELECT extract(epoch FROM now() - marked_at) FROM {schema}.relink_marks ORDER BY seq LIMIT 1), 0)::float8
           AS oldest_mark_s,
       (SELECT count(*) FROM {schema}.rechecks) AS rechecks,
       (SELECT count(*) FROM {schema}.outbox) AS answers
