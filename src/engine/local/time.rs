//! Times as the disk keeps them: nanoseconds since 1970, negative before.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, held within what 64 bits can say (years 1678 to 2262).
pub(super) fn to_ns(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

/// The time `ns` nanoseconds after 1970.
pub(super) fn from_ns(ns: i64) -> SystemTime {
    let length = Duration::from_nanos(ns.unsigned_abs());
    if ns >= 0 { UNIX_EPOCH + length } else { UNIX_EPOCH - length }
}

/// Milliseconds since 1970, now.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
