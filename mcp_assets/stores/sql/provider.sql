-- name: provider_outages
SELECT model, reason, since, tries, next_try_at, extract(epoch FROM next_try_at - clock_timestamp())::float8
FROM {schema}.provider_outages WHERE model = ANY(%(models)s) ORDER BY since, model

-- name: lock_provider_outage
SELECT tries, next_try_at <= clock_timestamp() FROM {schema}.provider_outages WHERE model = %(model)s FOR UPDATE

-- name: write_provider_outage
INSERT INTO {schema}.provider_outages (model, reason, tries, next_try_at)
VALUES (%(model)s, %(reason)s, %(tries)s, clock_timestamp() + make_interval(secs => %(wait_s)s))
ON CONFLICT (model) DO UPDATE
SET reason = excluded.reason, tries = excluded.tries, next_try_at = excluded.next_try_at

-- name: claim_provider_try
UPDATE {schema}.provider_outages
SET tries = tries + 1, next_try_at = clock_timestamp() + make_interval(secs => %(wait_s)s)
WHERE model = %(model)s AND tries = %(tries)s AND next_try_at <= clock_timestamp()
RETURNING model

-- name: end_provider_outage
DELETE FROM {schema}.provider_outages WHERE model = %(model)s
