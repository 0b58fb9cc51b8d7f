//! One sync for all that wait for it, and nothing else: what a close costs at least where it is durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::{Errno, ReplyEmpty};

/// Large enough that a sync moves no metadata for long.
const ROOM_BYTES: usize = 16 << 20;

/// Keeps what was written, by a thread of its own.
#[derive(Debug)]
pub(crate) struct SharedSync {
    written: Arc<Mutex<Vec<u8>>>,
    waiting: Sender<ReplyEmpty>,
}

impl SharedSync {
    /// Into a file at `place`, which is made.
    pub(crate) fn into_file(place: &Path) -> io::Result<Self> {
        let file = File::create_new(place)?;
        file.write_all_at(&vec![0; ROOM_BYTES], 0)?;
        file.sync_all()?;
        let (waiting, asked) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let bytes = Arc::clone(&written);
        std::thread::spawn(move || keep(&file, &bytes, &asked));
        Ok(Self { written, waiting })
    }

    /// Takes bytes that the next sync is to make durable.
    pub(crate) fn write(&self, bytes: &[u8]) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    /// Answers when all that was written is durable.
    pub(crate) fn answer(&self, reply: ReplyEmpty) {
        if let Err(mpsc::SendError(reply)) = self.waiting.send(reply) {
            reply.error(Errno::EIO);
        }
    }
}

fn keep(file: &File, written: &Mutex<Vec<u8>>, asked: &Receiver<ReplyEmpty>) {
    let mut at = 0;
    while let Ok(first) = asked.recv() {
        let replies: Vec<_> = std::iter::once(first).chain(asked.try_iter()).collect();
        let bytes = std::mem::take(&mut *written.lock().unwrap_or_else(PoisonError::into_inner));
        if at + bytes.len() > ROOM_BYTES {
            at = 0;
        }
        let kept = file.write_all_at(&bytes, at as u64).and_then(|()| file.sync_data());
        at += bytes.len();
        for reply in replies {
            match &kept {
                Ok(()) => reply.ok(),
                Err(_) => reply.error(Errno::EIO),
            }
        }
    }
}
