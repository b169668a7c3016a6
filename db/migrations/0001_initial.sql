-- Money moves only by inserting a transfer (which holds it) and settling that transfer once
-- (which posts or voids it). The triggers below are the only code that computes a balance.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE account (
    id       INTEGER PRIMARY KEY,
    -- mint: where credits come from and expire to; pool: a whole server's; user: a member's balance;
    -- allowance: a member's free credits of the day; provider: what pictures have cost
    kind     TEXT    NOT NULL CHECK (kind IN ('mint', 'pool', 'user', 'allowance', 'provider')),
    guild_id INTEGER NOT NULL DEFAULT 0,
    user_id  INTEGER NOT NULL DEFAULT 0,
    posted   INTEGER NOT NULL DEFAULT 0,
    held     INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
    frozen   INTEGER NOT NULL DEFAULT 0 CHECK (frozen IN (0, 1)),
    UNIQUE (kind, guild_id, user_id),
    CONSTRAINT enough_credits CHECK (kind = 'mint' OR posted - held >= 0)
) STRICT;

CREATE TABLE job (
    id               INTEGER PRIMARY KEY,  -- the interaction's id: the same request twice is one job
    guild_id         INTEGER NOT NULL,
    user_id          INTEGER NOT NULL,
    channel_id       INTEGER NOT NULL,
    message_id       INTEGER,
    token            TEXT,
    token_expires_at REAL,
    private          INTEGER NOT NULL DEFAULT 0 CHECK (private IN (0, 1)),
    state            TEXT    NOT NULL DEFAULT 'queued' CHECK (state IN
                     ('queued', 'sending', 'rendered', 'delivered', 'undeliverable', 'failed', 'cancelled')),
    attempt          INTEGER NOT NULL DEFAULT 0 CHECK (attempt BETWEEN 0 AND 2),
    operation        TEXT    NOT NULL CHECK (operation IN ('img2img', 'reroll', 'vary_subtle', 'vary_strong')),
    parent_id        INTEGER REFERENCES job (id),
    parent_sample    INTEGER,
    request          TEXT    NOT NULL CHECK (json_valid(request)),
    source_url       TEXT,
    source_hash      TEXT,
    input_hash       TEXT,
    input_pixels     INTEGER,
    price            INTEGER NOT NULL CHECK (price >= 0),
    charged          INTEGER CHECK (charged BETWEEN 0 AND price),
    day              INTEGER NOT NULL,
    backend          TEXT,
    failure          TEXT,
    created_at       REAL    NOT NULL,
    started_at       REAL,
    rendered_at      REAL,
    ended_at         REAL,
    deleted_at       REAL
) STRICT;

CREATE INDEX job_unfinished ON job (state) WHERE state IN ('queued', 'sending', 'rendered');
CREATE INDEX job_of_member ON job (guild_id, user_id, created_at);

CREATE TABLE result (
    job_id INTEGER NOT NULL REFERENCES job (id),
    sample INTEGER NOT NULL CHECK (sample BETWEEN 0 AND 3),
    seed   INTEGER NOT NULL,
    hash   TEXT    NOT NULL,
    width  INTEGER NOT NULL,
    height INTEGER NOT NULL,
    PRIMARY KEY (job_id, sample)
) STRICT;

CREATE TABLE transfer (
    id         TEXT    PRIMARY KEY,  -- the idempotency key: job:…, grant:…, take:…, allowance:…
    src        INTEGER NOT NULL REFERENCES account (id),
    dst        INTEGER NOT NULL REFERENCES account (id) CHECK (dst <> src),
    amount     INTEGER NOT NULL CHECK (amount > 0),
    charged    INTEGER CHECK (charged BETWEEN 1 AND amount),
    state      TEXT    NOT NULL CHECK (state IN ('pending', 'posted', 'voided')),
    job_id     INTEGER REFERENCES job (id),
    actor_id   INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    created_at REAL    NOT NULL,
    settled_at REAL,
    CHECK ((state = 'posted') = (charged IS NOT NULL)),
    CHECK ((state = 'pending') = (settled_at IS NULL))
) STRICT;

CREATE INDEX transfer_of_job ON transfer (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX transfer_from ON transfer (src, created_at);
CREATE INDEX transfer_to ON transfer (dst, created_at);

CREATE TABLE guild (
    id        INTEGER PRIMARY KEY,
    allowance INTEGER CHECK (allowance >= 0)  -- a day's for every member; NULL: the operator's default
) STRICT;

CREATE TABLE member (
    guild_id  INTEGER NOT NULL,
    user_id   INTEGER NOT NULL,
    allowance INTEGER CHECK (allowance >= 0),  -- this member's own; NULL: the server's
    day       INTEGER NOT NULL DEFAULT 0,      -- the day that `given` belongs to
    given     INTEGER NOT NULL DEFAULT 0 CHECK (given >= 0),
    revision  INTEGER NOT NULL DEFAULT 0,      -- counts changes of `given`: part of the transfers' ids
    PRIMARY KEY (guild_id, user_id)
) STRICT;

CREATE TABLE audit (
    id             INTEGER PRIMARY KEY,
    interaction_id INTEGER NOT NULL UNIQUE,
    guild_id       INTEGER NOT NULL,
    actor_id       INTEGER NOT NULL,
    target_id      INTEGER,
    action         TEXT    NOT NULL,
    before         INTEGER,
    after          INTEGER,
    reason         TEXT    NOT NULL,
    at             REAL    NOT NULL
) STRICT;

CREATE INDEX audit_of_guild ON audit (guild_id, at);

-- ---------------------------------------------------------------- transfers

CREATE TRIGGER transfer_begins BEFORE INSERT ON transfer BEGIN
    SELECT RAISE(ABORT, 'a transfer begins pending') WHERE NEW.state <> 'pending';
    -- INSERT OR REPLACE deletes without firing a delete trigger
    SELECT RAISE(ABORT, 'this transfer exists') WHERE EXISTS (SELECT 1 FROM transfer WHERE id = NEW.id);
    SELECT RAISE(ABORT, 'this account is frozen')
        WHERE EXISTS (SELECT 1 FROM account WHERE id IN (NEW.src, NEW.dst) AND frozen);
END;

CREATE TRIGGER transfer_holds AFTER INSERT ON transfer BEGIN
    UPDATE account SET held = held + NEW.amount WHERE id = NEW.src;
END;

CREATE TRIGGER transfer_settles_once BEFORE UPDATE ON transfer BEGIN
    SELECT RAISE(ABORT, 'a settled transfer is final') WHERE OLD.state <> 'pending';
    SELECT RAISE(ABORT, 'settling posts or voids') WHERE NEW.state NOT IN ('posted', 'voided');
    SELECT RAISE(ABORT, 'settling changes nothing else')
        WHERE (NEW.id, NEW.src, NEW.dst, NEW.amount, NEW.actor_id, NEW.reason, NEW.created_at)
           IS NOT (OLD.id, OLD.src, OLD.dst, OLD.amount, OLD.actor_id, OLD.reason, OLD.created_at)
           OR NEW.job_id IS NOT OLD.job_id;
END;

CREATE TRIGGER transfer_posts AFTER UPDATE ON transfer WHEN NEW.state = 'posted' BEGIN
    UPDATE account SET posted = posted - NEW.charged, held = held - NEW.amount WHERE id = NEW.src;
    UPDATE account SET posted = posted + NEW.charged WHERE id = NEW.dst;
END;

CREATE TRIGGER transfer_voids AFTER UPDATE ON transfer WHEN NEW.state = 'voided' BEGIN
    UPDATE account SET held = held - NEW.amount WHERE id = NEW.src;
END;

CREATE TRIGGER transfer_stays BEFORE DELETE ON transfer BEGIN
    SELECT RAISE(ABORT, 'transfers are never deleted');
END;

-- ---------------------------------------------------------------- accounts

CREATE TRIGGER account_is_new BEFORE INSERT ON account BEGIN
    SELECT RAISE(ABORT, 'an account begins empty') WHERE NEW.posted <> 0 OR NEW.held <> 0;
    SELECT RAISE(ABORT, 'this account exists') WHERE EXISTS (
        SELECT 1 FROM account WHERE id = NEW.id
        OR (kind, guild_id, user_id) = (NEW.kind, NEW.guild_id, NEW.user_id));
END;

CREATE TRIGGER account_keeps_owner BEFORE UPDATE OF id, kind, guild_id, user_id ON account BEGIN
    SELECT RAISE(ABORT, 'an account keeps its owner');
END;

CREATE TRIGGER account_stays BEFORE DELETE ON account BEGIN
    SELECT RAISE(ABORT, 'accounts are never deleted');
END;

-- ---------------------------------------------------------------- jobs

CREATE TRIGGER job_is_new BEFORE INSERT ON job BEGIN
    SELECT RAISE(ABORT, 'a job begins queued') WHERE NEW.state <> 'queued';
    SELECT RAISE(ABORT, 'this job exists') WHERE EXISTS (SELECT 1 FROM job WHERE id = NEW.id);
END;

CREATE TRIGGER job_moves BEFORE UPDATE OF state ON job WHEN NEW.state <> OLD.state BEGIN
    SELECT RAISE(ABORT, 'not a legal change of a job''s state')
        WHERE (OLD.state, NEW.state) NOT IN (VALUES
            ('queued', 'sending'), ('queued', 'failed'), ('queued', 'cancelled'),
            ('sending', 'queued'), ('sending', 'rendered'), ('sending', 'failed'), ('sending', 'cancelled'),
            ('rendered', 'delivered'), ('rendered', 'undeliverable'), ('undeliverable', 'delivered'));
    SELECT RAISE(ABORT, 'a job is sent with its input stored')
        WHERE NEW.state = 'sending' AND NEW.input_hash IS NULL;
    SELECT RAISE(ABORT, 'a rendered job is paid and has its picture')
        WHERE NEW.state = 'rendered' AND (
            NEW.charged IS NULL
            OR NOT EXISTS (SELECT 1 FROM result WHERE job_id = NEW.id)
            OR EXISTS (SELECT 1 FROM transfer WHERE job_id = NEW.id AND state = 'pending')
            OR NEW.charged <> (SELECT coalesce(sum(charged), 0) FROM transfer WHERE job_id = NEW.id));
    SELECT RAISE(ABORT, 'a failed or cancelled job costs nothing')
        WHERE NEW.state IN ('failed', 'cancelled')
        AND EXISTS (SELECT 1 FROM transfer WHERE job_id = NEW.id AND state <> 'voided');
END;

CREATE TRIGGER job_stays BEFORE DELETE ON job BEGIN
    SELECT RAISE(ABORT, 'jobs are never deleted');
END;

-- ---------------------------------------------------------------- audit

CREATE TRIGGER audit_is_new BEFORE INSERT ON audit BEGIN
    SELECT RAISE(ABORT, 'this act is on record') WHERE EXISTS (
        SELECT 1 FROM audit WHERE id = NEW.id OR interaction_id = NEW.interaction_id);
END;

CREATE TRIGGER audit_is_fixed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is never changed');
END;

CREATE TRIGGER audit_stays BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is never deleted');
END;
