//! Writer views: the tree once more for each name in `.baton/as`, with the writer fixed by the path. Knows numbers and
//! the names of writers; not what a view shows.
//!
//! A node has one number, and in each view another: its own with the view's in the middle. So what the kernel asks about
//! says itself through which view, without a table of nodes, and the number that `stat` and `/proc/P/fdinfo` show leads
//! back to the node ([`seen_as`]). All of it is below 2^53, so that programs that keep numbers of files in a
//! floating-point number do not take two files for one.
//!
//! ```text
//! bit 52   51..48   47..32   31..0
//!     1    random   view     counter, from a random start; over its end it begins again
//! ```

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::errno::Refusal;
use super::inodes::Ino;
use crate::identity::holders::SeenAs;
use crate::words::Claim;

const COUNTER: u64 = 0xffff_ffff;
const VIEW_SHIFT: u32 = 32;
const VIEW: u64 = 0xffff << VIEW_SHIFT;

/// How many views the kernel may remember at one time.
pub(super) const VIEWS_MAX: usize = u16::MAX as usize;

/// The tree a path goes through: the plain one, or that of a writer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct View(u16);

impl View {
    /// The tree of those who declare their writer themselves.
    pub const PLAIN: Self = Self(0);

    /// Does it fix no writer?
    #[must_use]
    pub fn is_plain(self) -> bool {
        self == Self::PLAIN
    }

    fn slot(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// The number that the kernel knows a node by in a view.
#[must_use]
pub(super) fn encode(view: View, ino: Ino) -> u64 {
    ino | u64::from(view.0) << VIEW_SHIFT
}

/// The view and the node of a number that the kernel has.
#[must_use]
pub(super) fn decode(number: u64) -> (View, Ino) {
    (View((number >> VIEW_SHIFT & 0xffff) as u16), number & !VIEW)
}

/// A node as `/proc/P/fdinfo` shows it, in whatever view it is open.
#[must_use]
pub(super) fn seen_as(ino: Ino) -> SeenAs {
    SeenAs { ino, but: VIEW }
}

/// The first number to give out, from random bits: no other file system on the machine should have the same one.
#[must_use]
pub(super) fn first_ino(random: u64) -> Ino {
    (1 << 52) | (random & (0xf << 48)) | (random & COUNTER)
}

/// The number after this one.
#[must_use]
pub(super) fn next_ino(ino: Ino) -> Ino {
    (ino & !COUNTER) | (ino.wrapping_add(1) & COUNTER)
}

/// The writer that a name in `.baton/as` stands for. A writer has one name there: its id, with `%25` for `%` and `%2F`
/// for `/`, and `%2E` for each dot of an id that is `.` or `..`.
///
/// # Errors
/// EINVAL for a name of no writer, or another form of one's name; ENAMETOOLONG for an id that is too long to be recorded.
pub(super) fn writer_of(name: &str) -> Result<String, Refusal> {
    let invalid = |why: &str| Refusal::new(libc::EINVAL, format!("'{name}' names no writer: {why}"));
    let writer = decoded(name).ok_or_else(|| invalid("'%' is written '%25'"))?;
    match Claim::id("a writer id", &writer) {
        Ok(None) => return Err(invalid("an id is not blank")),
        Err(error) => return Err(Refusal::new(libc::ENAMETOOLONG, error.to_string())),
        Ok(Some(_)) if writer.contains('\0') => return Err(invalid("no id has a NUL")),
        Ok(Some(_)) => {}
    }
    let right = name_of(&writer);
    if right == name { Ok(writer) } else { Err(invalid(&format!("'{right}' does, and that is its only name here"))) }
}

/// The name of a writer in `.baton/as`.
fn name_of(writer: &str) -> String {
    match writer {
        "." | ".." => writer.replace('.', "%2E"),
        _ => writer.replace('%', "%25").replace('/', "%2F"),
    }
}

fn decoded(name: &str) -> Option<String> {
    let mut parts = name.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        // What reads numbers would take a sign, too; of the two forms of a digit one is compared later.
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// The views that the kernel remembers something of, each with its writer.
#[derive(Debug, Default)]
pub(super) struct Views {
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Option<Slot>>,
    by_writer: HashMap<Arc<str>, View>,
    free: Vec<View>,
}

#[derive(Debug)]
struct Slot {
    writer: Arc<str>,
    /// How often the kernel was given a node of it and has not forgotten it yet.
    lookups: u64,
}

impl Views {
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view of a writer, for a reply that gives the kernel its root; counted as one.
    ///
    /// # Errors
    /// ENFILE when the kernel remembers too many others.
    pub(super) fn enter(&self, writer: &str) -> Result<View, Refusal> {
        let mut table = self.write();
        let view = match table.by_writer.get(writer) {
            Some(&view) => view,
            None => table.open(writer).ok_or_else(|| {
                let words = format!("the kernel remembers {VIEWS_MAX} writer views: no more can be told apart");
                Refusal::new(libc::ENFILE, words)
            })?,
        };
        table.looked_up(view);
        Ok(view)
    }

    /// Counts a reply that gives the kernel a node of a view.
    pub(super) fn looked_up(&self, view: View) {
        if !view.is_plain() {
            self.write().looked_up(view);
        }
    }

    /// The kernel forgets so many of what it was given of a view. When that was all, its number may come to mean another.
    pub(super) fn forget(&self, view: View, count: u64) {
        if !view.is_plain() {
            self.write().forget(view, count);
        }
    }

    /// How many views the kernel remembers something of.
    pub(super) fn count(&self) -> usize {
        self.read().by_writer.len()
    }

    /// The writer that a view fixes; `None` in the plain tree.
    ///
    /// # Errors
    /// ESTALE for a view that the kernel was never given.
    pub(super) fn writer(&self, view: View) -> Result<Option<Arc<str>>, Refusal> {
        let Some(slot) = view.slot() else { return Ok(None) };
        let table = self.read();
        let slot = table.slots.get(slot).and_then(Option::as_ref);
        let slot = slot.ok_or_else(|| Refusal::new(libc::ESTALE, "this writer view is not known"))?;
        Ok(Some(Arc::clone(&slot.writer)))
    }
}

impl Table {
    fn open(&mut self, writer: &str) -> Option<View> {
        let view = match self.free.pop() {
            Some(view) => view,
            None => {
                let view = View(u16::try_from(self.slots.len() + 1).ok()?);
                self.slots.push(None);
                view
            }
        };
        let writer = Arc::<str>::from(writer);
        self.by_writer.insert(Arc::clone(&writer), view);
        *self.slot(view)? = Some(Slot { writer, lookups: 0 });
        Some(view)
    }

    fn slot(&mut self, view: View) -> Option<&mut Option<Slot>> {
        self.slots.get_mut(view.slot()?)
    }

    fn looked_up(&mut self, view: View) {
        if let Some(Some(slot)) = self.slot(view) {
            slot.lookups += 1;
        }
    }

    fn forget(&mut self, view: View, count: u64) {
        let Some(place) = self.slot(view) else { return };
        let Some(slot) = place else { return };
        slot.lookups = slot.lookups.saturating_sub(count);
        if slot.lookups == 0
            && let Some(slot) = place.take()
        {
            self.by_writer.remove(&slot.writer);
            self.free.push(view);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::inodes::ROOT;
    use super::*;

    fn id(name: &str) -> Result<String, i32> {
        writer_of(name).map_err(|refusal| refusal.errno)
    }

    // V2
    #[test]
    fn a_writer_has_exactly_one_name() {
        for (writer, name) in [
            ("planner", "planner"),
            ("a b:c,\u{e9}\n", "a b:c,\u{e9}\n"),
            ("team/planner", "team%2Fplanner"),
            ("100%", "100%25"),
            ("%2F", "%252F"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("...", "..."),
            (".hidden", ".hidden"),
        ] {
            assert_eq!(name_of(writer), name);
            assert_eq!(id(name), Ok(writer.to_owned()));
        }
        for other in ["%41", "team%2fplanner", "%2E.", "%", "%4", "%zz", "%+5", "%\u{e9}", "", " ", "%20", "%FF", "%00"]
        {
            assert_eq!(id(other), Err(libc::EINVAL), "{other}");
        }
        assert_eq!(id(&"%2F".repeat(256)), Ok("/".repeat(256)));
        assert_eq!(id(&"x".repeat(257)), Err(libc::ENAMETOOLONG));
    }

    #[test]
    fn a_number_tells_its_view_and_its_node_and_fits_a_float() {
        for ino in [ROOT, first_ino(u64::MAX), first_ino(0), first_ino(0x1234_5678_9abc_def0)] {
            for view in [View::PLAIN, View(1), View(u16::MAX)] {
                let number = encode(view, ino);
                assert_eq!(decode(number), (view, ino));
                assert!(number < 1 << 53);
            }
        }
        let last = first_ino(u64::MAX);
        assert_eq!(decode(next_ino(last)), (View::PLAIN, last & !COUNTER), "over its end the counter begins again");
    }

    #[test]
    fn a_view_lives_as_long_as_the_kernel_remembers_something_of_it() {
        let views = Views::default();
        let (a, b) = (views.enter("a").unwrap(), views.enter("b").unwrap());
        assert_ne!(a, b);
        assert_eq!(views.enter("a").unwrap(), a);
        views.looked_up(a);
        views.forget(a, 2);
        assert_eq!(views.writer(a).unwrap().as_deref(), Some("a"));
        views.forget(a, 1);
        assert_eq!(views.writer(a).unwrap_err().errno, libc::ESTALE);
        assert_eq!(views.enter("c").unwrap(), a, "its number is used again");
        assert_eq!(views.writer(a).unwrap().as_deref(), Some("c"));
        assert_ne!(views.enter("a").unwrap(), a);
        assert_eq!(views.writer(View::PLAIN), Ok(None));
        views.forget(View::PLAIN, 9);
        assert_eq!(views.count(), 3);
    }

    // V2
    #[test]
    fn views_that_cannot_be_told_apart_are_not_given() {
        let views = Views::default();
        for n in 0..VIEWS_MAX {
            views.enter(&n.to_string()).unwrap();
        }
        assert_eq!(views.enter("one more").unwrap_err().errno, libc::ENFILE);
        let known = views.enter("7").unwrap();
        assert!(!known.is_plain());
        views.forget(known, 2);
        assert_eq!(views.enter("one more"), Ok(known));
    }
}
