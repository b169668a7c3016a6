-- Today's names for what 0001 and 0002 called otherwise; a moderation action's changes become data.

ALTER TABLE job RENAME COLUMN request TO params_json;
ALTER TABLE guild RENAME COLUMN mirrored TO last_mirrored_id;

-- Proposals live for 15 minutes; those of the version before are of another form.
DELETE FROM proposal;
ALTER TABLE proposal RENAME COLUMN act TO action_json;

-- ---------------------------------------------------------------- the audit records

DROP TRIGGER audit_on_trail;
DROP TRIGGER audit_is_new;
DROP TRIGGER audit_is_fixed;
DROP TRIGGER audit_stays;

ALTER TABLE audit RENAME TO audit_record;
-- `detail` stays for the records of the versions before, which put their changes into words.
ALTER TABLE audit_record ADD COLUMN changes_json TEXT
    CHECK (changes_json IS NULL OR json_valid(changes_json));

CREATE TRIGGER audit_record_is_new BEFORE INSERT ON audit_record BEGIN
    SELECT RAISE(ABORT, 'this action is recorded already') WHERE EXISTS (
        SELECT 1 FROM audit_record WHERE id = NEW.id OR interaction_id = NEW.interaction_id);
END;

CREATE TRIGGER audit_record_is_fixed BEFORE UPDATE ON audit_record BEGIN
    SELECT RAISE(ABORT, 'audit records are never changed');
END;

CREATE TRIGGER audit_record_stays BEFORE DELETE ON audit_record BEGIN
    SELECT RAISE(ABORT, 'audit records are never deleted');
END;

-- ---------------------------------------------------------------- the audit log

CREATE TABLE audit_log (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    guild_id        INTEGER NOT NULL,
    kind            TEXT    NOT NULL CHECK (kind IN
                    ('action', 'asked', 'rendered', 'failed', 'cancelled', 'pressed', 'reported', 'deleted')),
    user_id         INTEGER NOT NULL,
    job_id          INTEGER REFERENCES job (id),
    audit_record_id INTEGER REFERENCES audit_record (id),
    note            TEXT    NOT NULL DEFAULT '',
    at              REAL    NOT NULL
) STRICT;

INSERT INTO audit_log (id, guild_id, kind, user_id, job_id, audit_record_id, note, at)
    SELECT id, guild_id, iif(kind = 'act', 'action', kind), user_id, job_id, audit_id, note, at FROM trail;

DROP TRIGGER job_on_trail;
DROP TRIGGER job_end_on_trail;
DROP TABLE trail;

CREATE INDEX audit_log_of_guild ON audit_log (guild_id, id);

CREATE TRIGGER audit_log_is_fixed BEFORE UPDATE ON audit_log BEGIN
    SELECT RAISE(ABORT, 'the audit log is never changed');
END;

CREATE TRIGGER audit_log_stays BEFORE DELETE ON audit_log BEGIN
    SELECT RAISE(ABORT, 'the audit log is never deleted');
END;

CREATE TRIGGER audit_log_is_new BEFORE INSERT ON audit_log BEGIN
    SELECT RAISE(ABORT, 'this entry exists') WHERE EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id);
END;

CREATE TRIGGER audit_record_is_logged AFTER INSERT ON audit_record BEGIN
    INSERT INTO audit_log (guild_id, kind, user_id, audit_record_id, at)
        VALUES (NEW.guild_id, 'action', NEW.actor_id, NEW.id, NEW.at);
END;

-- Jobs have their own table; the log follows them only where a server has a log channel.
CREATE TRIGGER job_is_logged AFTER INSERT ON job
WHEN EXISTS (SELECT 1 FROM guild WHERE id = NEW.guild_id AND log_channel_id IS NOT NULL) BEGIN
    INSERT INTO audit_log (guild_id, kind, user_id, job_id, at)
        VALUES (NEW.guild_id, 'asked', NEW.user_id, NEW.id, NEW.created_at);
END;

CREATE TRIGGER job_end_is_logged AFTER UPDATE OF state ON job
WHEN NEW.state IN ('rendered', 'failed', 'cancelled') AND OLD.state <> NEW.state
AND EXISTS (SELECT 1 FROM guild WHERE id = NEW.guild_id AND log_channel_id IS NOT NULL) BEGIN
    INSERT INTO audit_log (guild_id, kind, user_id, job_id, at)
        VALUES (NEW.guild_id, NEW.state, NEW.user_id, NEW.id,
                coalesce(NEW.ended_at, NEW.rendered_at, NEW.created_at));
END;
