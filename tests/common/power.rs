//! A disk in memory that knows what of it would outlive a power cut, and makes the disks that one could leave.
//!
//! What is promised to outlive it is what a sync returned for. Everything else may be there, be missing or be torn by
//! itself: of a file each write (sector by sector), its length, each xattr, its mode, owner and time; of names each
//! change, though a rename or an exchange is one change, what is changed later at a name comes with what was changed
//! there before, a name with the directory it is in, and the end of a directory with the end of what was in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batonfs::engine::Space;
use batonfs::engine::local::disk::{Access, Disk, DiskFile, FileId, Form, Stat};

/// What of a file a power cut takes or leaves as one.
const SECTOR_BYTES: usize = 512;

/// What is done before a change.
type Before = Box<dyn FnMut(&PowerDisk, &str) + Send>;

/// Does a sync report success and do nothing? By its name and those of the two changes or syncs before it.
pub(crate) type Deaf = fn(&[String; 2], &str) -> bool;

/// A disk whose power can be cut.
#[derive(Clone)]
pub(crate) struct PowerDisk {
    world: Arc<Mutex<World>>,
    before: Arc<Mutex<Option<Before>>>,
}

impl std::fmt::Debug for PowerDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PowerDisk")
    }
}

#[derive(Clone, Default)]
struct World {
    nodes: BTreeMap<u64, Node>,
    /// Changes of names that no sync has made durable, oldest first.
    names: Vec<Names>,
    next: u64,
    clock_ns: i64,
    boot: u64,
    cut: bool,
    /// Changes until the power goes by itself.
    left: Option<usize>,
    /// Changes until some fail, how many do, and with which error.
    failing: Option<(usize, usize, i32)>,
    /// Every change and sync is printed.
    told: bool,
    /// The two changes or syncs before this one.
    last: [String; 2],
    /// What a test breaks.
    deaf: Option<Deaf>,
}

#[derive(Clone)]
struct Node {
    live: Body,
    durable: Body,
    pending: Vec<Change>,
    links: u64,
    open: u64,
}

#[derive(Clone)]
enum Body {
    File(Content),
    Dir { entries: BTreeMap<String, u64>, mode: u32, owner: (u32, u32), mtime_ns: i64 },
}

#[derive(Clone, Default)]
struct Content {
    /// Shared by the worlds that have the same.
    bytes: Arc<Vec<u8>>,
    xattrs: BTreeMap<String, Vec<u8>>,
    mode: u32,
    owner: (u32, u32),
    mtime_ns: i64,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Arc<Vec<u8>> },
    Len(usize),
    Xattr(String, Option<Vec<u8>>),
    Mode(u32),
    Owner(u32, u32),
    Time(i64),
}

/// One change of names: what each is afterwards.
#[derive(Clone)]
struct Names(Vec<(u64, String, Option<u64>)>);

/// A source of chance that says the same twice.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }

    /// True in `percent` of a hundred.
    pub(crate) fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// For who looks into a case.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    drop(writeln!(io::stderr(), "{line}"));
}

fn errno<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

impl Change {
    fn apply(&self, to: &mut Body) {
        match (self, to) {
            (Self::Write { offset, bytes }, Body::File(content)) => {
                let (end, there) = (offset + bytes.len(), Arc::make_mut(&mut content.bytes));
                if there.len() < end {
                    there.resize(end, 0);
                }
                there[*offset..end].copy_from_slice(bytes);
            }
            (Self::Len(len), Body::File(content)) => Arc::make_mut(&mut content.bytes).resize(*len, 0),
            (Self::Xattr(name, Some(value)), Body::File(content)) => {
                content.xattrs.insert(name.clone(), value.clone());
            }
            (Self::Xattr(name, None), Body::File(content)) => {
                content.xattrs.remove(name);
            }
            (Self::Mode(new), Body::File(Content { mode, .. }) | Body::Dir { mode, .. }) => *mode = *new,
            (Self::Owner(uid, gid), Body::File(Content { owner, .. }) | Body::Dir { owner, .. }) => {
                *owner = (*uid, *gid)
            }
            (Self::Time(ns), Body::File(Content { mtime_ns, .. }) | Body::Dir { mtime_ns, .. }) => *mtime_ns = *ns,
            (_, Body::Dir { .. }) => {}
        }
    }

    /// What a power cut may leave of a change that was on its way.
    fn torn(&self, chance: &mut Chance) -> Vec<Self> {
        match self {
            Self::Write { offset, bytes } => {
                let (mut left, mut at) = (Vec::new(), 0);
                while at < bytes.len() {
                    let end = (((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset).min(bytes.len());
                    if chance.is(50) {
                        left.push(Self::Write { offset: offset + at, bytes: Arc::new(bytes[at..end].to_vec()) });
                    }
                    at = end;
                }
                if chance.is(50) {
                    // The length without the bytes.
                    left.insert(0, Self::Write { offset: offset + bytes.len(), bytes: Arc::default() });
                }
                left
            }
            other => vec![other.clone()],
        }
    }
}

impl World {
    fn resolve(&self, path: &str) -> io::Result<u64> {
        let mut at = 0;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Some(next) = self.entries(at)?.get(part) else { return errno(libc::ENOENT) };
            at = *next;
        }
        Ok(at)
    }

    fn entries(&self, dir: u64) -> io::Result<&BTreeMap<String, u64>> {
        match self.nodes.get(&dir).map(|node| &node.live) {
            Some(Body::Dir { entries, .. }) => Ok(entries),
            Some(Body::File(_)) => errno(libc::ENOTDIR),
            None => errno(libc::ENOENT),
        }
    }

    fn parent<'p>(&self, path: &'p str) -> io::Result<(u64, &'p str)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.resolve(dir)?;
        self.entries(dir)?;
        Ok((dir, name))
    }

    fn now(&mut self) -> i64 {
        self.clock_ns += 1_000;
        self.clock_ns
    }

    fn make(&mut self, body: Body) -> u64 {
        self.next += 1;
        self.nodes
            .insert(self.next, Node { durable: empty_of(&body), live: body, pending: Vec::new(), links: 0, open: 0 });
        self.next
    }

    fn change(&mut self, ino: u64, change: Change) -> io::Result<()> {
        let Some(node) = self.nodes.get_mut(&ino) else { return errno(libc::ESTALE) };
        change.apply(&mut node.live);
        node.pending.push(change);
        Ok(())
    }

    fn rename(&mut self, sets: Vec<(u64, String, Option<u64>)>) {
        for (dir, name, to) in &sets {
            set_name(&mut self.nodes, *dir, name, *to, true);
        }
        self.names.push(Names(sets));
    }

    fn sync_node(&mut self, ino: u64, all: bool) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let mut kept = Vec::new();
        for change in std::mem::take(&mut node.pending) {
            if all || matches!(change, Change::Write { .. } | Change::Len(_)) {
                change.apply(&mut node.durable);
            } else {
                kept.push(change);
            }
        }
        if kept.is_empty() {
            // The same bytes once.
            node.durable = match (&node.live, &node.durable) {
                (Body::File(_), _) => node.live.clone(),
                (_, durable) => durable.clone(),
            };
        }
        node.pending = kept;
    }

    /// Makes changes of names durable, each with those that were made at the same names before it.
    fn sync_names(&mut self, wanted: impl Fn(&Names) -> bool) {
        let pending = std::mem::take(&mut self.names);
        let mut durable = vec![false; pending.len()];
        for index in (0..pending.len()).rev() {
            let later = (index + 1..pending.len()).any(|later| durable[later] && pending[later].meets(&pending[index]));
            durable[index] = later || wanted(&pending[index]);
        }
        for (names, durable) in pending.into_iter().zip(durable) {
            if durable {
                self.settle(&names);
            } else {
                self.names.push(names);
            }
        }
    }

    fn settle(&mut self, names: &Names) {
        for (dir, name, to) in &names.0 {
            set_name(&mut self.nodes, *dir, name, *to, false);
        }
    }

    /// One of the worlds that a power cut now could leave.
    fn after_cut(&self, chance: &mut Chance) -> Self {
        let mut world = self.clone();
        let (style, keep) = (chance.below(5), [20, 50, 80, 95][chance.below(4) as usize]);
        let pending = std::mem::take(&mut world.names);
        let prefix = chance.below(pending.len() as u64 + 1) as usize;
        let mut kept = vec![false; pending.len()];
        for index in 0..pending.len() {
            let before = (0..index).filter(|before| pending[index].meets(&pending[*before]));
            let whole = before.into_iter().all(|before| kept[before]);
            kept[index] = whole
                && match style {
                    0 => true,
                    1 => false,
                    2 => index < prefix,
                    _ => chance.is(keep),
                };
            if kept[index] {
                world.settle(&pending[index]);
            }
        }
        let style = chance.below(4);
        for node in world.nodes.values_mut() {
            for change in std::mem::take(&mut node.pending) {
                match style {
                    0 => change.apply(&mut node.durable),
                    1 => {}
                    _ if chance.is(keep) => change.apply(&mut node.durable),
                    _ if chance.is(50) => change.torn(chance).iter().for_each(|torn| torn.apply(&mut node.durable)),
                    _ => {}
                }
            }
            node.live = node.durable.clone();
            (node.links, node.open) = (0, 0);
        }
        world.boot += 1;
        (world.cut, world.left, world.deaf, world.failing) = (false, None, None, None);
        world.clock_ns += 60_000_000_000;
        world.forget_unnamed();
        world
    }

    fn forget_unnamed(&mut self) {
        let (mut seen, mut dirs) = (BTreeMap::<u64, u64>::from([(0, 1)]), vec![0]);
        while let Some(dir) = dirs.pop() {
            let entries = self.entries(dir).cloned().unwrap_or_default();
            for ino in entries.into_values() {
                let count = seen.entry(ino).or_default();
                *count += 1;
                if *count == 1 && matches!(self.nodes.get(&ino).map(|node| &node.live), Some(Body::Dir { .. })) {
                    dirs.push(ino);
                }
            }
        }
        self.nodes.retain(|ino, _| seen.contains_key(ino));
        for (ino, links) in seen {
            if let Some(node) = self.nodes.get_mut(&ino) {
                node.links = links;
            }
        }
    }
}

fn empty_of(body: &Body) -> Body {
    match body {
        Body::File(_) => Body::File(Content { mode: 0o600, ..Content::default() }),
        Body::Dir { mode, owner, mtime_ns, .. } => {
            Body::Dir { entries: BTreeMap::new(), mode: *mode, owner: *owner, mtime_ns: *mtime_ns }
        }
    }
}

fn set_name(nodes: &mut BTreeMap<u64, Node>, dir: u64, name: &str, to: Option<u64>, live: bool) {
    let Some(node) = nodes.get_mut(&dir) else { return };
    let Body::Dir { entries, .. } = (if live { &mut node.live } else { &mut node.durable }) else { return };
    let before = match to {
        Some(ino) => entries.insert(name.to_owned(), ino),
        None => entries.remove(name),
    };
    if live {
        if let Some(node) = to.and_then(|ino| nodes.get_mut(&ino)) {
            node.links += 1;
        }
        if let Some(node) = before.and_then(|ino| nodes.get_mut(&ino)) {
            node.links -= 1;
        }
    }
}

impl Names {
    /// Does this one come with `other`, which was made before it?
    fn meets(&self, other: &Self) -> bool {
        let of = |names: &Self| names.0.iter().map(|(dir, name, _)| (*dir, name.clone())).collect::<BTreeSet<_>>();
        let makes = |dir: u64| other.0.iter().any(|(_, _, to)| *to == Some(dir));
        let ends = |dir: u64| self.0.iter().any(|(of, name, _)| *of == dir && name.is_empty());
        !of(self).is_disjoint(&of(other))
            || self.0.iter().any(|(dir, _, _)| makes(*dir))
            || other.0.iter().any(|(dir, _, _)| ends(*dir))
    }
}

impl PowerDisk {
    /// An empty disk.
    pub(crate) fn new() -> Self {
        let root = Body::Dir { entries: BTreeMap::new(), mode: 0o755, owner: (0, 0), mtime_ns: 0 };
        let node = Node { live: root.clone(), durable: root, pending: Vec::new(), links: 1, open: 0 };
        Self::of(World { nodes: BTreeMap::from([(0, node)]), clock_ns: 1_700_000_000_000_000_000, ..World::default() })
    }

    fn of(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)), before: Arc::default() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `before` ahead of every change and sync, with its name.
    pub(crate) fn before(&self, before: impl FnMut(&Self, &str) + Send + 'static) {
        *self.before.lock().unwrap() = Some(Box::new(before));
    }

    /// The power goes after so many more changes and syncs: each further one fails.
    pub(crate) fn cut_after(&self, changes: usize) {
        self.world().left = Some(changes);
    }

    /// So many changes and syncs fail after so many more.
    pub(crate) fn fail_at(&self, after: usize, count: usize, errno: i32) {
        self.world().failing = Some((after, count, errno));
    }

    /// None fails any more; how many more would have.
    pub(crate) fn fail_over(&self) -> Option<usize> {
        self.world().failing.take().map(|(_, count, _)| count)
    }

    /// Such syncs report success and do nothing.
    pub(crate) fn ignore_syncs(&self, deaf: Deaf) {
        self.world().deaf = Some(deaf);
    }

    /// Prints what is there, and every change and sync from now on.
    pub(crate) fn tell(&self) {
        let mut world = self.world();
        world.told = true;
        let mut dirs = vec![(String::new(), 0)];
        while let Some((path, dir)) = dirs.pop() {
            for (name, ino) in world.entries(dir).cloned().unwrap_or_default() {
                let path = format!("{path}/{name}");
                match &world.nodes[&ino].live {
                    Body::Dir { .. } => dirs.push((path, ino)),
                    Body::File(content) => {
                        let mark = content.xattrs.get("user.batonfs").map(|mark| String::from_utf8_lossy(mark));
                        let mark = mark.unwrap_or_default().trim_end().to_owned();
                        say(&format!("{path} is {ino}: {} bytes, {} {mark}", content.bytes.len(), content.mtime_ns));
                    }
                }
            }
        }
    }

    /// One of the disks that a power cut now could leave.
    pub(crate) fn after_cut(&self, chance: &mut Chance) -> Self {
        Self::of(self.world().after_cut(chance))
    }

    /// The same disk after the process died: nothing written is lost.
    pub(crate) fn after_death(&self) -> Self {
        let mut world = self.world().clone();
        (world.cut, world.left, world.deaf, world.failing) = (false, None, None, None);
        world.nodes.values_mut().for_each(|node| node.open = 0);
        Self::of(world)
    }

    /// The same disk with everything on it durable; `boots`: after the machine has started again.
    pub(crate) fn settled(&self, boots: bool) -> Self {
        let mut world = self.after_death().world().clone();
        world.sync_names(|_| true);
        let all: Vec<_> = world.nodes.keys().copied().collect();
        all.into_iter().for_each(|ino| world.sync_node(ino, true));
        world.boot += u64::from(boots);
        Self::of(world)
    }

    /// Every file, by its path, with its xattr of this name.
    pub(crate) fn files(&self, xattr: &str) -> Vec<(String, Vec<u8>, Option<Vec<u8>>)> {
        let world = self.world();
        let (mut files, mut dirs) = (Vec::new(), vec![(String::new(), 0)]);
        while let Some((above, dir)) = dirs.pop() {
            for (name, ino) in world.entries(dir).cloned().unwrap_or_default() {
                let path = if above.is_empty() { name } else { format!("{above}/{name}") };
                match &world.nodes[&ino].live {
                    Body::Dir { .. } => dirs.push((path, ino)),
                    Body::File(content) => {
                        files.push((path, content.bytes.to_vec(), content.xattrs.get(xattr).cloned()));
                    }
                }
            }
        }
        files.sort();
        files
    }

    /// Gives a file other bytes, or its xattr of this name, as a disk does that fails in silence: no time changes.
    pub(crate) fn damage(&self, path: &str, xattr: Option<&str>, bytes: Vec<u8>) {
        let mut world = self.world();
        let ino = world.resolve(path).unwrap();
        let node = world.nodes.get_mut(&ino).unwrap();
        for body in [&mut node.live, &mut node.durable] {
            let Body::File(content) = body else { continue };
            match xattr {
                Some(xattr) => drop(content.xattrs.insert(xattr.to_owned(), bytes.clone())),
                None => content.bytes = Arc::new(bytes.clone()),
            }
        }
    }

    /// A change or sync begins; `true` where a sync is one that does nothing.
    fn begin(&self, what: &str) -> io::Result<bool> {
        let before = self.before.lock().unwrap().take();
        if let Some(mut before) = before {
            before(self, what);
            self.before.lock().unwrap().get_or_insert(before);
        }
        let mut world = self.world();
        if world.told {
            say(what);
        }
        if let Some(left) = &mut world.left {
            if *left == 0 {
                world.cut = true;
            } else {
                *left -= 1;
            }
        }
        if world.cut {
            return errno(libc::EIO);
        }
        match world.failing {
            Some((0, 0, _)) | None => {}
            Some((0, count, errno)) => {
                world.failing = Some((0, count - 1, errno));
                return Err(io::Error::from_raw_os_error(errno));
            }
            Some((after, count, errno)) => world.failing = Some((after - 1, count, errno)),
        }
        let deaf = world.deaf.is_some_and(|deaf| deaf(&world.last, what));
        world.last.rotate_left(1);
        what.clone_into(&mut world.last[1]);
        Ok(deaf)
    }

    fn open_node(&self, ino: u64, path: &str) -> Box<dyn DiskFile> {
        if let Some(node) = self.world().nodes.get_mut(&ino) {
            node.open += 1;
        }
        Box::new(PowerFile { disk: self.clone(), ino, path: path.to_owned() })
    }

    fn make_file(&self, path: &str, mode: u32, bytes: Vec<u8>) -> io::Result<u64> {
        let mut world = self.world();
        let (dir, name) = world.parent(path)?;
        if world.entries(dir)?.contains_key(name) {
            return errno(libc::EEXIST);
        }
        let mtime_ns = world.now();
        let ino = world.make(Body::File(Content { mode, mtime_ns, ..Content::default() }));
        if !bytes.is_empty() {
            world.change(ino, Change::Write { offset: 0, bytes: Arc::new(bytes) })?;
        }
        world.rename(vec![(dir, name.to_owned(), Some(ino))]);
        Ok(ino)
    }

    fn move_name(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let mut world = self.world();
        let ((from_dir, from_name), (to_dir, to_name)) = (world.parent(from)?, world.parent(to)?);
        let Some(ino) = world.entries(from_dir)?.get(from_name).copied() else { return errno(libc::ENOENT) };
        match world.entries(to_dir)?.get(to_name).copied() {
            Some(_) if !replace => return errno(libc::EEXIST),
            Some(there) => {
                let is_dir = |ino: u64| matches!(world.nodes.get(&ino).map(|node| &node.live), Some(Body::Dir { .. }));
                match (is_dir(ino), is_dir(there)) {
                    (false, true) => return errno(libc::EISDIR),
                    (true, false) => return errno(libc::ENOTDIR),
                    (true, true) if !world.entries(there)?.is_empty() => return errno(libc::ENOTEMPTY),
                    _ => {}
                }
            }
            None => {}
        }
        world.rename(vec![(to_dir, to_name.to_owned(), Some(ino)), (from_dir, from_name.to_owned(), None)]);
        Ok(())
    }
}

fn stat_of(world: &World, ino: u64) -> io::Result<Stat> {
    let Some(node) = world.nodes.get(&ino) else { return errno(libc::ESTALE) };
    let (form, size, mode, owner, mtime_ns) = match &node.live {
        Body::File(content) => (Form::File, content.bytes.len(), content.mode, content.owner, content.mtime_ns),
        Body::Dir { mode, owner, mtime_ns, .. } => (Form::Dir, 0, *mode, *owner, *mtime_ns),
    };
    Ok(Stat {
        form,
        id: FileId { ino, born_ns: 1 },
        links: node.links,
        size_bytes: size as u64,
        blocks: size.div_ceil(512) as u64,
        mode,
        uid: owner.0,
        gid: owner.1,
        mtime_ns,
        // Nothing here is ever old.
        changed_ns: i64::MAX,
    })
}

impl Disk for PowerDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let ino = self.world().resolve(path)?;
        let is_dir = self.world().entries(ino).is_ok();
        if is_dir && access == Access::Write {
            return errno(libc::EISDIR);
        }
        Ok(self.open_node(ino, path))
    }
    fn create(&self, path: &str, mode: u32) -> io::Result<Box<dyn DiskFile>> {
        self.begin(&format!("create {path}"))?;
        let ino = self.make_file(path, mode, Vec::new())?;
        Ok(self.open_node(ino, path))
    }
    fn anonymous(&self, _dir: &str) -> io::Result<File> {
        tempfile::tempfile()
    }
    fn link_anonymous(&self, file: &File, to: &str) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.begin(&format!("link_anonymous {to}"))?;
        let mut bytes = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        self.make_file(to, 0o600, bytes).map(drop)
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.begin(&format!("link {from} {to}"))?;
        let mut world = self.world();
        let ino = world.resolve(from)?;
        let (dir, name) = world.parent(to)?;
        if world.entries(dir)?.contains_key(name) {
            return errno(libc::EEXIST);
        }
        world.rename(vec![(dir, name.to_owned(), Some(ino))]);
        Ok(())
    }
    fn stat(&self, path: &str) -> io::Result<Stat> {
        let world = self.world();
        stat_of(&world, world.resolve(path)?)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.begin(&format!("rename {from} {to}"))?;
        self.move_name(from, to, true)
    }
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.begin(&format!("rename_new {from} {to}"))?;
        self.move_name(from, to, false)
    }
    fn exchange(&self, a: &str, b: &str) -> io::Result<()> {
        self.begin(&format!("exchange {a} {b}"))?;
        let mut world = self.world();
        let (ino_a, ino_b) = (world.resolve(a)?, world.resolve(b)?);
        let ((dir_a, name_a), (dir_b, name_b)) = (world.parent(a)?, world.parent(b)?);
        world.rename(vec![(dir_a, name_a.to_owned(), Some(ino_b)), (dir_b, name_b.to_owned(), Some(ino_a))]);
        Ok(())
    }
    fn unlink(&self, path: &str) -> io::Result<()> {
        self.begin(&format!("unlink {path}"))?;
        let mut world = self.world();
        let ino = world.resolve(path)?;
        if world.entries(ino).is_ok() {
            return errno(libc::EISDIR);
        }
        let (dir, name) = world.parent(path)?;
        world.rename(vec![(dir, name.to_owned(), None)]);
        Ok(())
    }
    fn make_dir(&self, path: &str, mode: u32) -> io::Result<()> {
        self.begin(&format!("make_dir {path}"))?;
        let mut world = self.world();
        let (dir, name) = world.parent(path)?;
        if world.entries(dir)?.contains_key(name) {
            return errno(libc::EEXIST);
        }
        let mtime_ns = world.now();
        let ino = world.make(Body::Dir { entries: BTreeMap::new(), mode, owner: (0, 0), mtime_ns });
        world.rename(vec![(dir, name.to_owned(), Some(ino))]);
        Ok(())
    }
    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.begin(&format!("remove_dir {path}"))?;
        let mut world = self.world();
        let ino = world.resolve(path)?;
        if !world.entries(ino)?.is_empty() {
            return errno(libc::ENOTEMPTY);
        }
        let (dir, name) = world.parent(path)?;
        // Whatever happened to the names in it comes first.
        world.rename(vec![(dir, name.to_owned(), None), (ino, String::new(), None)]);
        Ok(())
    }
    fn read_dir(&self, path: &str) -> io::Result<Vec<(OsString, Form)>> {
        let world = self.world();
        let entries = world.entries(world.resolve(path)?)?;
        let names = entries.iter().map(|(name, ino)| Ok((OsString::from(name), stat_of(&world, *ino)?.form)));
        names.collect()
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        if !self.begin(&format!("sync_dir {path}"))? {
            let mut world = self.world();
            let dir = world.resolve(path)?;
            world.sync_names(|names| names.0.iter().any(|(of, _, _)| *of == dir));
        }
        Ok(())
    }
    fn sync_everything(&self) -> io::Result<()> {
        if !self.begin("sync_everything")? {
            let mut world = self.world();
            world.sync_names(|_| true);
            let all: Vec<_> = world.nodes.keys().copied().collect();
            all.into_iter().for_each(|ino| world.sync_node(ino, true));
        }
        Ok(())
    }
    fn space(&self) -> io::Result<Space> {
        Ok(Space { block_bytes: 4096, blocks: 1, blocks_free: 1, blocks_available: 1, files: 1, files_free: 1 })
    }
    fn boot(&self) -> String {
        format!("boot {}", self.world().boot)
    }
}

#[derive(Debug)]
struct PowerFile {
    disk: PowerDisk,
    ino: u64,
    path: String,
}

impl Drop for PowerFile {
    fn drop(&mut self) {
        if let Some(node) = self.disk.world().nodes.get_mut(&self.ino) {
            node.open = node.open.saturating_sub(1);
        }
    }
}

impl PowerFile {
    fn change(&self, what: &str, change: Change) -> io::Result<()> {
        self.disk.begin(&format!("{what} {}", self.path))?;
        let mut world = self.disk.world();
        let moves_time = matches!(change, Change::Write { .. } | Change::Len(_));
        world.change(self.ino, change)?;
        if moves_time {
            let now = world.now();
            world.change(self.ino, Change::Time(now))?;
        }
        Ok(())
    }

    fn content<T>(&self, of: impl FnOnce(&Content) -> T) -> io::Result<T> {
        match self.disk.world().nodes.get(&self.ino).map(|node| &node.live) {
            Some(Body::File(content)) => Ok(of(content)),
            Some(Body::Dir { .. }) => Ok(of(&Content::default())),
            None => errno(libc::ESTALE),
        }
    }
}

impl DiskFile for PowerFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.content(|content| {
            let from = content.bytes.get(offset as usize..).unwrap_or_default();
            let n = from.len().min(buffer.len());
            buffer[..n].copy_from_slice(&from[..n]);
            n
        })
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change("write", Change::Write { offset: offset as usize, bytes: Arc::new(bytes.to_vec()) })
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change("set_len", Change::Len(len as usize))
    }
    fn stat(&self) -> io::Result<Stat> {
        stat_of(&self.disk.world(), self.ino)
    }
    fn xattr(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.content(|content| content.xattrs.get(name).cloned())
    }
    fn xattr_names(&self) -> io::Result<Vec<String>> {
        self.content(|content| content.xattrs.keys().cloned().collect())
    }
    fn set_xattr(&self, name: &str, value: &[u8]) -> io::Result<()> {
        self.change(&format!("set_xattr {name}"), Change::Xattr(name.to_owned(), Some(value.to_vec())))
    }
    fn remove_xattr(&self, name: &str) -> io::Result<()> {
        self.change(&format!("remove_xattr {name}"), Change::Xattr(name.to_owned(), None))
    }
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.change("set_mode", Change::Mode(mode))
    }
    fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.change("set_owner", Change::Owner(uid, gid))
    }
    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()> {
        self.change("set_mtime", Change::Time(mtime_ns))
    }
    fn is_open_here_only(&self) -> io::Result<bool> {
        Ok(self.disk.world().nodes.get(&self.ino).is_some_and(|node| node.open == 1))
    }
    fn sync_data(&self) -> io::Result<()> {
        if !self.disk.begin(&format!("sync_data {}", self.path))? {
            self.disk.world().sync_node(self.ino, false);
        }
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        if !self.disk.begin(&format!("sync {}", self.path))? {
            self.disk.world().sync_node(self.ino, true);
        }
        Ok(())
    }
}
