//! What has to happen in one step on the server.

use ::redis::Script;

/// The scripts. KEYS[1] is the hash of topics and KEYS[2] the stream, or KEYS[1] the stream alone.
pub(super) struct Scripts {
    /// ARGV: topic, then fields and values. The entry's id, or nothing without such a topic.
    pub(super) publish: Script,
    /// ARGV: topic, group, where it begins. Nothing without such a topic.
    pub(super) join: Script,
    /// ARGV: topic. Whether there was one.
    pub(super) delete: Script,
    /// ARGV: group, entry, member, attempt. Whether the member still held it.
    pub(super) ack: Script,
    /// ARGV: group, entry, member, attempt, how long it is to seem idle. 1 if the member still held it, 2 if it did and
    /// the entry is no longer there.
    pub(super) nack: Script,
    /// ARGV: group, member. Forgets a member that holds nothing.
    pub(super) leave: Script,
}

/// Who holds an entry, and for which time: somebody who was late finds another member, or a higher count.
const HELD: &str = "
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)[1]
if not held or held[2] ~= ARGV[3] or held[4] ~= tonumber(ARGV[4]) then return 0 end
";

impl Default for Scripts {
    fn default() -> Scripts {
        Scripts {
            publish: Script::new(
                "local bound = redis.call('HGET', KEYS[1], ARGV[1])
                if not bound then return false end
                if bound == '' then return redis.call('XADD', KEYS[2], '*', unpack(ARGV, 2)) end
                return redis.call('XADD', KEYS[2], 'MAXLEN', '~', bound, '*', unpack(ARGV, 2))",
            ),
            join: Script::new(
                "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
                local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[2], ARGV[3], 'MKSTREAM')
                if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
                return 1",
            ),
            delete: Script::new(
                "if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
                redis.call('DEL', KEYS[2])
                return 1",
            ),
            ack: Script::new(&format!("{HELD} return redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])")),
            nack: Script::new(&format!(
                "{HELD} local kept = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[2], 'IDLE', ARGV[5], 'JUSTID')
                if #kept == 0 then return 2 end
                return 1"
            )),
            leave: Script::new(
                "if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
                    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
                end
                return 1",
            ),
        }
    }
}
