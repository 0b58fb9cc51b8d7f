//! How long the lines of a log are together, without reading again those that were read before: `stat` asks often.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Context, Next, Result};
use crate::words::SessionId;

/// So many sizes are remembered; then all are forgotten.
const SIZES_MAX: usize = 1_024;

/// A number of a line, and how many bytes there are up to its end.
pub(super) type Size = (u64, u64);

/// Of which session, of which file, and of which writer's view.
type Of = (SessionId, &'static str, Option<String>);

/// The sizes that were asked for.
#[derive(Debug, Default)]
pub struct Sizes(Mutex<HashMap<Of, Size>>);

impl Sizes {
    pub(super) fn known(&self, context: &Context<'_>, name: &'static str) -> Size {
        let known = |of| self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&of).copied();
        of(context, name).and_then(known).unwrap_or_default()
    }

    pub(super) fn note(&self, context: &Context<'_>, name: &'static str, size: Size) {
        let Some(of) = of(context, name) else { return };
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.len() >= SIZES_MAX {
            sizes.clear();
        }
        // Another may have read further meanwhile.
        let known = sizes.entry(of).or_default();
        *known = size.max(*known);
    }
}

fn of(context: &Context<'_>, name: &'static str) -> Option<Of> {
    Some((context.session?.clone(), name, context.only.map(str::to_owned)))
}

/// The size of all lines, from what is known of the first of them on.
pub(super) fn sized(context: &Context<'_>, next: Next, (mut after, mut size): Size) -> Result<Size> {
    let mut text = Vec::new();
    loop {
        text.clear();
        let last = next(context, after, &mut text)?;
        if last == after {
            return Ok((after, size));
        }
        (after, size) = (last, size + text.len() as u64);
    }
}
