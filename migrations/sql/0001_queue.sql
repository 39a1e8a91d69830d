-- Where the queue is. Its tables come from the engine's own SQL (worker/store/queue.py).
DO $$
BEGIN
    IF to_regnamespace('queue') IS NULL THEN -- else an administrator has made it
        CREATE SCHEMA queue;
        COMMENT ON SCHEMA queue IS 'The tables of PgQueuer, by which workers share their jobs.';
    END IF;
END
$$;
