//! The table of versions of one session against what its log says: F40. Knows what the log says of keys; must not know
//! values.

use super::facts::Facts;
use super::mend::Mend;
use super::{Fault, Scan};
use crate::engine::local::disk::Access;
use crate::engine::local::log::is_upto;
use crate::engine::local::paths;
use crate::engine::local::table::Table;
use crate::engine::{EngineError, Result};
use crate::words::SessionId;

impl Scan<'_, '_> {
    /// Is the table whole, of this log, and behind it nowhere? Then it may be asked instead.
    pub(super) fn check_table(&mut self, session: &SessionId, facts: &Facts) -> Result<()> {
        let place = paths::versions(session);
        if self.disk.stat(&place).is_err() {
            return Ok(());
        }
        let mut wrong = self.judge_table(session, facts);
        if let (Some(live), false) = (self.live, matches!(wrong, Ok(None))) {
            // A checkpoint may have been writing it just then: it does so under this lock.
            let known = live.loaded(session)?;
            let _order = known.order();
            wrong = self.judge_table(session, facts);
        }
        if let Some(what) = self.or_unreadable(&place, wrong)?.flatten() {
            let remedy = "it can go: the log says the same, and a new one is made of it";
            self.found(Fault::damage("F40", &place, what, remedy).mended_by(Mend::Remove(place.clone())));
        }
        Ok(())
    }

    fn judge_table(&mut self, session: &SessionId, facts: &Facts) -> Result<Option<String>> {
        let Some(table) = Table::open(self.disk, session)? else {
            return Ok(Some("its header is not whole, or it has not the size that this says".to_owned()));
        };
        let upto = table.upto();
        if !self.disk.open(&paths::log(session), Access::Read).is_ok_and(|log| is_upto(&*log, &upto)) {
            return Ok(Some(format!("the line of change {}, which it says it goes to, is not where it was", upto.seq)));
        }
        let keys: Vec<_> = if facts.whole { facts.upto(upto.seq).collect() } else { Vec::new() };
        match table.check(keys.into_iter(), || self.step()) {
            Ok(behind) => Ok(behind.map(|key| format!("it is behind the log in the versions of '{key}'"))),
            Err(EngineError::Damaged { what, .. }) => Ok(Some(what)),
            Err(e) => Err(e),
        }
    }
}
