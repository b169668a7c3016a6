-- What moderators may set, what was spent each day, and the trail of what happened in a server.
-- NULL in a limit: the server set none, the operator's holds.

ALTER TABLE guild ADD COLUMN daily_cap INTEGER CHECK (daily_cap >= 0);      -- credits a day, all members together
ALTER TABLE guild ADD COLUMN running_max INTEGER CHECK (running_max >= 1);  -- of one member, at once
ALTER TABLE guild ADD COLUMN waiting_max INTEGER CHECK (waiting_max >= 1);  -- of one member, at once
ALTER TABLE guild ADD COLUMN steps_max INTEGER CHECK (steps_max >= 1);
ALTER TABLE guild ADD COLUMN samples_max INTEGER CHECK (samples_max >= 1);
ALTER TABLE guild ADD COLUMN pixels_max INTEGER CHECK (pixels_max >= 1);
ALTER TABLE guild ADD COLUMN slow_s INTEGER CHECK (slow_s >= 0);            -- between two jobs of one member
ALTER TABLE guild ADD COLUMN giving INTEGER NOT NULL DEFAULT 0 CHECK (giving IN (0, 1));
ALTER TABLE guild ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0 CHECK (frozen IN (0, 1));
ALTER TABLE guild ADD COLUMN private INTEGER NOT NULL DEFAULT 0 CHECK (private IN (0, 1));
ALTER TABLE guild ADD COLUMN results_channel_id INTEGER;
ALTER TABLE guild ADD COLUMN log_channel_id INTEGER;
ALTER TABLE guild ADD COLUMN mirrored INTEGER NOT NULL DEFAULT 0;           -- the last trail entry in the log channel

ALTER TABLE member ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0 CHECK (blocked IN (0, 1));

ALTER TABLE job ADD COLUMN age_restricted INTEGER NOT NULL DEFAULT 0 CHECK (age_restricted IN (0, 1));
ALTER TABLE job ADD COLUMN results_channel_id INTEGER;

CREATE INDEX job_of_message ON job (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX job_open_of_member ON job (guild_id, user_id) WHERE state IN ('queued', 'sending');

CREATE TABLE role_rule (
    guild_id  INTEGER NOT NULL,
    role_id   INTEGER NOT NULL,
    allowance INTEGER CHECK (allowance >= 0),
    may_use   INTEGER NOT NULL DEFAULT 0 CHECK (may_use IN (0, 1)),
    PRIMARY KEY (guild_id, role_id)
) STRICT;

CREATE TABLE channel_rule (
    guild_id   INTEGER NOT NULL,
    channel_id INTEGER NOT NULL,
    allowed    INTEGER NOT NULL CHECK (allowed IN (0, 1)),
    PRIMARY KEY (guild_id, channel_id)
) STRICT;

CREATE TABLE blocked_text (
    guild_id INTEGER NOT NULL,
    kind     TEXT    NOT NULL CHECK (kind IN ('word', 'pattern')),
    text     TEXT    NOT NULL CHECK (length(text) BETWEEN 1 AND 100),
    adult_ok INTEGER NOT NULL CHECK (adult_ok IN (0, 1)),  -- let through in age-restricted channels
    PRIMARY KEY (guild_id, kind, text)
) STRICT;

-- An act that waits for its moderator to confirm it; once done, the audit has its interaction's id.
CREATE TABLE proposal (
    interaction_id INTEGER PRIMARY KEY,
    guild_id       INTEGER NOT NULL,
    actor_id       INTEGER NOT NULL,
    reason         TEXT    NOT NULL,
    act            TEXT    NOT NULL CHECK (json_valid(act)),
    created_at     REAL    NOT NULL
) STRICT;

CREATE TABLE provider_balance (
    backend   TEXT    PRIMARY KEY,
    remaining REAL    NOT NULL,
    at        REAL    NOT NULL,
    alerted   INTEGER NOT NULL DEFAULT 0 CHECK (alerted IN (0, 1))
) STRICT;

-- ------------------------------------------------- what each day's pictures cost

CREATE TABLE spending (
    day      INTEGER NOT NULL,
    guild_id INTEGER NOT NULL,  -- 0: all servers together
    amount   INTEGER NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (day, guild_id)
) STRICT;

-- Holds count from the start, so that servers that race for the same cap never exceed it.
CREATE TRIGGER spending_holds AFTER INSERT ON transfer WHEN NEW.job_id IS NOT NULL BEGIN
    INSERT INTO spending (day, guild_id, amount)
        SELECT job.day, which.guild_id, NEW.amount
        FROM job, (SELECT 0 AS guild_id UNION SELECT guild_id FROM job WHERE id = NEW.job_id) AS which
        WHERE job.id = NEW.job_id
        ON CONFLICT DO UPDATE SET amount = amount + excluded.amount;
END;

CREATE TRIGGER spending_settles AFTER UPDATE ON transfer WHEN NEW.job_id IS NOT NULL BEGIN
    UPDATE spending SET amount = amount - (NEW.amount - coalesce(NEW.charged, 0))
        WHERE day = (SELECT day FROM job WHERE id = NEW.job_id)
        AND guild_id IN (0, (SELECT guild_id FROM job WHERE id = NEW.job_id));
END;

INSERT INTO spending (day, guild_id, amount)
    SELECT job.day, which.guild_id, sum(coalesce(t.charged, t.amount))
    FROM transfer t JOIN job ON job.id = t.job_id
    JOIN (SELECT 0 AS guild_id UNION SELECT DISTINCT guild_id FROM job) AS which
        ON which.guild_id IN (0, job.guild_id)
    WHERE t.state <> 'voided'
    GROUP BY job.day, which.guild_id;

-- ------------------------------------------------------------------- the trail

ALTER TABLE audit ADD COLUMN detail TEXT NOT NULL DEFAULT '';

CREATE TABLE trail (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    guild_id INTEGER NOT NULL,
    kind     TEXT    NOT NULL CHECK (kind IN
             ('act', 'asked', 'rendered', 'failed', 'cancelled', 'pressed', 'reported', 'deleted')),
    user_id  INTEGER NOT NULL,
    job_id   INTEGER REFERENCES job (id),
    audit_id INTEGER REFERENCES audit (id),
    note     TEXT    NOT NULL DEFAULT '',
    at       REAL    NOT NULL
) STRICT;

CREATE INDEX trail_of_guild ON trail (guild_id, id);

CREATE TRIGGER trail_is_fixed BEFORE UPDATE ON trail BEGIN
    SELECT RAISE(ABORT, 'the trail is never changed');
END;

CREATE TRIGGER trail_stays BEFORE DELETE ON trail BEGIN
    SELECT RAISE(ABORT, 'the trail is never deleted');
END;

CREATE TRIGGER trail_is_new BEFORE INSERT ON trail BEGIN
    SELECT RAISE(ABORT, 'this entry exists') WHERE EXISTS (SELECT 1 FROM trail WHERE id = NEW.id);
END;

CREATE TRIGGER audit_on_trail AFTER INSERT ON audit BEGIN
    INSERT INTO trail (guild_id, kind, user_id, audit_id, at)
        VALUES (NEW.guild_id, 'act', NEW.actor_id, NEW.id, NEW.at);
END;

-- Jobs are on record in their own table; the trail follows them only where a server wants its log.
CREATE TRIGGER job_on_trail AFTER INSERT ON job
WHEN EXISTS (SELECT 1 FROM guild WHERE id = NEW.guild_id AND log_channel_id IS NOT NULL) BEGIN
    INSERT INTO trail (guild_id, kind, user_id, job_id, at)
        VALUES (NEW.guild_id, 'asked', NEW.user_id, NEW.id, NEW.created_at);
END;

CREATE TRIGGER job_end_on_trail AFTER UPDATE OF state ON job
WHEN NEW.state IN ('rendered', 'failed', 'cancelled') AND OLD.state <> NEW.state
AND EXISTS (SELECT 1 FROM guild WHERE id = NEW.guild_id AND log_channel_id IS NOT NULL) BEGIN
    INSERT INTO trail (guild_id, kind, user_id, job_id, at)
        VALUES (NEW.guild_id, NEW.state, NEW.user_id, NEW.id, coalesce(NEW.ended_at, NEW.rendered_at, NEW.created_at));
END;
