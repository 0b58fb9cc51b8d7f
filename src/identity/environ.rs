//! What a process declares: our variables in the bytes of its environment. Knows no process and no rule of precedence.

use std::os::unix::ffi::OsStrExt;

use super::IdentityError;
use crate::words::{Claim, ClaimError, Policy};

/// The variable that names the writer.
pub const WRITER_ID: &str = "BATON_WRITER_ID";
/// The variable that names the stage.
pub const STAGE_ID: &str = "BATON_STAGE_ID";
/// The variable that names the worker.
pub const WORKER_ID: &str = "BATON_WORKER_ID";
/// The variable that names the writer's session.
pub const SESSION_ID: &str = "BATON_SESSION_ID";
/// The variable that sets the process's own conflict policy.
pub const CONFLICT_POLICY: &str = "BATON_CONFLICT_POLICY";

/// What this process's own environment declares.
///
/// # Errors
/// [`IdentityError`]: it cannot be used.
pub fn own() -> Result<(Claim, Option<Policy>), IdentityError> {
    let mut environ = Vec::new();
    for (name, value) in std::env::vars_os() {
        environ.extend([name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
    }
    Ok((claim(&environ)?, policy(&environ)?))
}

/// The ids declared in an environment (`NAME=value`, each ended by a NUL); blank ones are not declared.
///
/// # Errors
/// [`ClaimError`]: one of them cannot be recorded.
pub(super) fn claim(environ: &[u8]) -> Result<Claim, ClaimError> {
    let id = |name| match value(environ, name)? {
        Some(value) => Claim::id(name, value),
        None => Ok(None),
    };
    Ok(Claim {
        writer_id: id(WRITER_ID)?,
        stage_id: id(STAGE_ID)?,
        session_id: id(SESSION_ID)?,
        worker_id: id(WORKER_ID)?,
    })
}

/// The policy set in an environment; blank is not set.
///
/// # Errors
/// [`IdentityError`]: it is none of the policies, or not UTF-8.
pub(super) fn policy(environ: &[u8]) -> Result<Option<Policy>, IdentityError> {
    match value(environ, CONFLICT_POLICY)? {
        Some(raw) if !raw.trim().is_empty() => Ok(Some(Policy::parse(raw)?)),
        _ => Ok(None),
    }
}

/// The value of a variable. Of several the first counts, as `getenv` has it.
fn value<'a>(environ: &'a [u8], name: &str) -> Result<Option<&'a str>, ClaimError> {
    let mut variables = environ.split(|byte| *byte == 0);
    let found = variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    found.map(|raw| std::str::from_utf8(raw).map_err(|_| ClaimError::NotUtf8(name.to_owned()))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::UnknownPolicy;

    #[test]
    fn all_four_ids_are_taken_and_others_are_not() {
        let environ = b"PATH=/bin\0BATON_WRITER_ID=w\0BATON_STAGE_ID=s\0XBATON_WORKER_ID=no\0BATON_SESSION_ID=p\0\
            BATON_WORKER_ID=k\0BATON_WRITER_IDS=no\0";
        let some = |id: &str| Some(id.to_owned());
        let expected = Claim { writer_id: some("w"), stage_id: some("s"), session_id: some("p"), worker_id: some("k") };
        assert_eq!(claim(environ), Ok(expected));
    }

    #[test]
    fn blank_is_not_declared() {
        assert_eq!(claim(b"BATON_WRITER_ID=\0BATON_STAGE_ID= \t\0BATON_WORKER_ID\0"), Ok(Claim::default()));
        assert_eq!(policy(b"BATON_CONFLICT_POLICY= \0"), Ok(None));
        assert_eq!(claim(b""), Ok(Claim::default()));
    }

    #[test]
    fn an_id_that_is_not_utf8_is_refused_by_name() {
        assert_eq!(claim(b"BATON_STAGE_ID=\xff\0"), Err(ClaimError::NotUtf8(STAGE_ID.to_owned())));
        assert_eq!(
            policy(b"BATON_CONFLICT_POLICY=\xff\0"),
            Err(ClaimError::NotUtf8(CONFLICT_POLICY.to_owned()).into())
        );
    }

    #[test]
    fn an_id_too_long_to_record_is_refused() {
        let environ = format!("BATON_WORKER_ID={}\0", "k".repeat(257));
        assert!(matches!(claim(environ.as_bytes()), Err(ClaimError::TooLong { len_bytes: 257, .. })));
    }

    #[test]
    fn of_two_the_first_counts() {
        let first = claim(b"BATON_WRITER_ID=a\0BATON_WRITER_ID=b\0").unwrap().writer_id;
        assert_eq!(first.as_deref(), Some("a"));
    }

    #[test]
    fn a_policy_is_read_as_everywhere() {
        assert_eq!(policy(b"BATON_CONFLICT_POLICY= Strict \0"), Ok(Some(Policy::Error)));
        assert_eq!(policy(b"BATON_CONFLICT_POLICY=never\0"), Err(UnknownPolicy("never".to_owned()).into()));
    }

    #[test]
    fn a_last_variable_without_its_nul_is_still_read() {
        assert_eq!(claim(b"BATON_WRITER_ID=w").unwrap().writer_id.as_deref(), Some("w"));
    }
}
