-- What is shown of the queue, over the tables that its engine has made (worker/store/queue.py).

CREATE VIEW sync.queue AS
SELECT entrypoint AS kind,
    count(*) FILTER (WHERE status = 'queued' AND execute_after <= now()) AS waiting,
    count(*) FILTER (WHERE status = 'queued' AND execute_after > now()) AS deferred,
    count(*) FILTER (WHERE status = 'picked') AS in_hand,
    coalesce(extract(epoch FROM max(now() - execute_after) FILTER (WHERE status = 'queued')), 0)::float8 AS oldest_seconds
FROM queue.pgqueuer GROUP BY entrypoint;
COMMENT ON VIEW sync.queue IS 'The queue by kind of job.';
COMMENT ON COLUMN sync.queue.waiting IS 'Jobs that could begin now.';
COMMENT ON COLUMN sync.queue.deferred IS 'Jobs that are tried again later.';
COMMENT ON COLUMN sync.queue.in_hand IS 'Jobs that a worker has in hand, or had when it died less than half a minute ago.';
COMMENT ON COLUMN sync.queue.oldest_seconds IS 'For how long the oldest job has waited.';
